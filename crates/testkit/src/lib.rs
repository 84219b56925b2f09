// SPDX-License-Identifier: MIT OR Apache-2.0
//! Models, conformance suites, fault harnesses and the history checker. Development only.

pub mod history;
