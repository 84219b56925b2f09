// SPDX-License-Identifier: MIT OR Apache-2.0
//! The context of a trace as it travels: W3C Trace Context, header `traceparent`
//! (<https://www.w3.org/TR/trace-context/#traceparent-header>), in gRPC metadata and in envelopes.

use std::fmt;

tokio::task_local! {
    static CURRENT: TraceContext;
}

/// A trace that is sampled, and the span under which what follows stands. What is not sampled has none.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    trace: [u8; 16],
    span: [u8; 8],
}

impl TraceContext {
    /// The name of the header.
    pub const HEADER: &'static str = "traceparent";
    /// Bytes of the header's value in version 00.
    const LENGTH: usize = 55;

    /// Of these ids; none where one is zero, which the format forbids.
    pub fn new(trace: [u8; 16], span: [u8; 8]) -> Option<Self> {
        (trace != [0; 16] && span != [0; 8]).then_some(Self { trace, span })
    }

    /// From a header's value. None for garbage, and for a trace that is not sampled: there is nothing to do then.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let (known, more) = value.split_at_checked(Self::LENGTH)?;
        let version = byte(&known[..2])?;
        // A later version may append fields.
        let ends = more.is_empty() || (version != 0 && more[0] == b'-');
        let dashes = [2, 35, 52].iter().all(|at| known[*at] == b'-');
        if version == 0xff || !ends || !dashes || byte(&known[53..])? & 1 == 0 {
            return None;
        }
        Self::new(bytes(&known[3..35])?, bytes(&known[36..52])?)
    }

    /// The id of the trace.
    pub const fn trace(&self) -> &[u8; 16] {
        &self.trace
    }

    /// The id of the span.
    pub const fn span(&self) -> &[u8; 8] {
        &self.span
    }
}

/// The header's value.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-01", u128::from_be_bytes(self.trace), u64::from_be_bytes(self.span))
    }
}

impl fmt::Debug for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TraceContext({self})")
    }
}

/// Two lower-case hexadecimal digits, the only form that the format allows.
fn byte(digits: &[u8]) -> Option<u8> {
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    Some(digit(digits[0])? << 4 | digit(digits[1])?)
}

fn bytes<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    for (at, digits) in digits.chunks_exact(2).enumerate() {
        bytes[at] = byte(digits)?;
    }
    Some(bytes)
}

/// The context in which this task works, if it is traced.
pub fn current() -> Option<TraceContext> {
    CURRENT.try_with(|context| *context).ok()
}

/// Runs `future` in this context; without one it runs as it is.
pub async fn within<F: Future>(context: Option<TraceContext>, future: F) -> F::Output {
    match context {
        Some(context) => CURRENT.scope(context, future).await,
        None => future.await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_context_survives_its_header() {
        let context = TraceContext::parse(VALUE.as_bytes()).expect("the example of the specification");
        assert_eq!(context.to_string(), VALUE);
        assert_eq!((context.trace()[0], context.span()[7]), (0x4b, 0xb7));
        let later = format!("cc{}-more", &VALUE[2..]);
        assert_eq!(TraceContext::parse(later.as_bytes()), Some(context), "a later version may say more");
    }

    #[test]
    fn garbage_is_no_context() {
        let spoilt = |at: usize, with: &str| format!("{}{with}{}", &VALUE[..at], &VALUE[at + with.len()..]);
        let zero_trace = format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32));
        let zero_span = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{}-01", "0".repeat(16));
        let bad = [
            String::new(),
            VALUE[..54].into(),
            format!("{VALUE}-more"),
            format!("01{}x", &VALUE[2..]),
            spoilt(0, "ff"),
            spoilt(3, "G"),
            spoilt(3, "A"),
            spoilt(2, "_"),
            spoilt(35, "_"),
            spoilt(52, "_"),
            spoilt(54, "2"),
            zero_trace,
            zero_span,
        ];
        for value in bad {
            assert_eq!(TraceContext::parse(value.as_bytes()), None, "{value}");
        }
        assert_eq!(TraceContext::parse(&[0xff; 55]), None);
        assert_eq!(TraceContext::parse(&[0; 4096]), None);
    }

    #[tokio::test]
    async fn a_task_knows_its_context_and_no_other_does() {
        let context = TraceContext::parse(VALUE.as_bytes());
        assert_eq!(within(context, async { current() }).await, context);
        assert_eq!(within(None, async { current() }).await, None);
        assert_eq!(current(), None);
    }
}
