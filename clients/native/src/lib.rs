// SPDX-License-Identifier: MIT OR Apache-2.0
//! The client on a computer: transports and storage around the core.
