// SPDX-License-Identifier: MIT OR Apache-2.0
//! Accounts, handles, device lists and key packages.
