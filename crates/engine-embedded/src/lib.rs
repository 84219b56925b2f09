// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every port on one SQLite file, for one process.
