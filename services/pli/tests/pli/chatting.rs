// SPDX-License-Identifier: MIT OR Apache-2.0
//! Two people and a server.
