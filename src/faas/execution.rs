//! What one invocation gave: its times, what it used, and what the function answered.
//!
//! The shape is SeBS's; what is ours stands under `invocation`. SeBS's own integer keys write 0 where a value is
//! absent, and such a 0 is read as absent.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::error::{Error, Result};
use crate::probe::Window;

/// One invocation, served or failed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ExecutionResult {
    /// The function server's id of the request; empty where none came.
    pub request_id: String,
    /// When it took place, seen from the client and from the server.
    pub times: ExecutionTimes,
    /// What the platform says of its times.
    pub provider_times: ProviderTimes,
    /// Cold or warm, served or failed.
    pub stats: ExecutionStats,
    /// What a cloud would charge for.
    pub billing: ExecutionBilling,
    /// The server's whole reply, byte for byte; `{"result": {}}` where none came.
    pub output: Box<RawValue>,
    /// What SeBS has no key for.
    #[serde(default)]
    pub invocation: Invocation,
}

/// Times of an invocation. SeBS mixes units here: integers are µs, the two of HTTP are seconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExecutionTimes {
    /// µs from before the connection was asked for until the last byte came.
    pub client: u64,
    /// Before the connection was asked for: RFC 3339 in UTC, with six digits.
    pub client_begin: String,
    /// After the last byte came.
    pub client_end: String,
    /// µs from the server's `begin` to its `end`: the handler, and for SeBS's Python server the import.
    #[serde(with = "zero_is_absent")]
    pub benchmark: Option<u64>,
    /// µs that the import of the function's code took; absent where it was imported before.
    #[serde(with = "zero_is_absent")]
    pub initialization: Option<u64>,
    /// Seconds until the request could be sent.
    pub http_startup: f64,
    /// Seconds until the first byte of the answer had come; absent where none came.
    pub http_first_byte_return: Option<f64>,
}

/// What the platform says of its times, which it is asked for after the invocations.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProviderTimes {
    /// µs of a cold start before its handler: the instance's start, as far as it is known, and the import.
    #[serde(with = "zero_is_absent")]
    pub initialization: Option<u64>,
    /// µs in the handler.
    #[serde(with = "zero_is_absent")]
    pub execution: Option<u64>,
}

/// What an invocation was, and used.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExecutionStats {
    /// Was it the first that its instance served?
    pub cold_start: bool,
    /// Did it fail? `invocation.error` says why.
    pub failure: bool,
    /// Its peak of memory in MB of 10⁶ bytes.
    pub memory_used: Option<f64>,
}

/// What a cloud would charge for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExecutionBilling {
    /// MB.
    #[serde(rename = "_memory")]
    pub memory: Option<u64>,
    /// ms.
    #[serde(rename = "_billed_time")]
    pub billed_time: Option<u64>,
    /// Memory in GB times seconds; 0 where it is not known.
    #[serde(rename = "_gb_seconds")]
    pub gb_seconds: f64,
}

/// What SeBS has no key for; what is not known is absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Invocation {
    /// µs in the handler alone, by the server's monotonic clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handler_us: Option<u64>,
    /// µs of processor time that the server's process used in the handler.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_us: Option<u64>,
    /// The instance that served it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<String>,
    /// Who answered, as the function server says; not written, since it is to be `instance_id`.
    #[serde(skip)]
    pub container_id: Option<String>,
    /// µs until it had that instance to itself: it waited for others, or for the start of the instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance_wait_us: Option<u64>,
    /// First part of its cold start, in µs: the platform created the instance. This and the next four are of an
    /// instance's first invocation alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub create_us: Option<u64>,
    /// Second part: the platform started the instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_us: Option<u64>,
    /// Third part: from then on to the first answer of the function server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready_us: Option<u64>,
    /// Fourth part: the import of the function's code, as in `times.initialization`. `handler_us` is the fifth and last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init_us: Option<u64>,
    /// The platform's count of enforced cold starts when its instance was started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cold_start_counter: Option<u64>,
    /// µs of processor time that all processes of its instance used meanwhile, by the kernel's count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance_cpu_us: Option<u64>,
    /// µs that its instance was not let run meanwhile, because of its CPU limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throttled_us: Option<u64>,
    /// How many of the scheduler's periods that was in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throttled_periods: Option<u64>,
    /// Was the connection one that an earlier invocation had left open?
    pub reused_connection: bool,
    /// `times.client_begin` by the monotonic clock, which recordings of memory count by too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub begin_monotonic_ns: Option<u64>,
    /// `times.client_end` by the monotonic clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_monotonic_ns: Option<u64>,
    /// The most that its instance used, page cache included: the largest of what the kernel's own peak counter, where it is
    /// the invocation's own, and the samples within it say, and, beside samples, of the readings just before and just after
    /// it. Absent without the first two: those readings alone are no peak.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_peak_bytes: Option<u64>,
    /// The kernel's own peak; absent where the kernel did not count it for this invocation alone, and it was no higher
    /// than any before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_kernel_peak_bytes: Option<u64>,
    /// Mean of the samples within it; absent without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mean_bytes: Option<f64>,
    /// How many samples were taken within it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_samples: Option<u64>,
    /// What its instance used just before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_before_bytes: Option<u64>,
    /// What its instance used just after it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_after_bytes: Option<u64>,
    /// Anonymous memory of its instance just after it, which the kernel may tell up to 2 s late.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_anon_bytes: Option<u64>,
    /// Page cache of its instance just after it, which the kernel may tell up to 2 s late.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_file_bytes: Option<u64>,
    /// What was read: `cgroup v2 memory.current` where samples were taken, else `cgroup v2 memory.peak`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_source: Option<String>,
    /// Did another invocation run on its instance meanwhile, so that the memory is that of both?
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overlapping: Option<bool>,
    /// `true`: its instance was seen to be paused meanwhile, so that its times are none of the function's. That is looked
    /// for only where an answer takes 100 ms or more; absent: it was not seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub was_paused: Option<bool>,
    /// Processes of its instance that the kernel killed meanwhile, for want of memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_kills: Option<u64>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The judgement of the benchmark's own validator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation: Option<Validation>,
}

impl Invocation {
    /// From its begin to its end, by the monotonic clock.
    pub fn window(&self) -> Option<Window> {
        Some(Window { begin_ns: self.begin_monotonic_ns?, end_ns: self.end_monotonic_ns? })
    }
}

/// What a benchmark's own validator says of an output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "verdict", content = "reason")]
pub enum Validation {
    /// The output is what the input asks for.
    Valid,
    /// It is not, and why.
    Invalid(String),
    /// The benchmark has no validator.
    NotValidated,
}

impl ExecutionResult {
    /// An invocation of which nothing is known yet.
    pub fn empty() -> ExecutionResult {
        ExecutionResult {
            request_id: String::new(),
            times: ExecutionTimes::default(),
            provider_times: ProviderTimes::default(),
            stats: ExecutionStats::default(),
            billing: ExecutionBilling::default(),
            output: no_output(),
            invocation: Invocation::default(),
        }
    }

    /// Takes in what the function server replied with status 200: its times, its flag, and the output.
    ///
    /// SeBS's servers are understood too: no keys of ours, and JSON under `body`.
    ///
    /// # Errors
    /// The reply is no JSON object, or has no `request_id` or no `is_cold`: the invocation failed.
    pub fn parse_reply(&mut self, reply: &[u8]) -> Result<()> {
        let text = std::str::from_utf8(reply)
            .map_err(|_| Error::new(format!("the reply is not UTF-8: {}", excerpt(reply))))?;
        let raw: &RawValue = serde_json::from_str(text)
            .map_err(|error| Error::new(format!("the reply is not JSON ({error}): {}", excerpt(reply))))?;
        let no_object = |_| Error::new(format!("the reply is not a JSON object: {}", excerpt(reply)));
        let mut parsed: Reply<'_> = serde_json::from_str(raw.get()).map_err(no_object)?;
        let raw = parsed.body.and_then(unwrap_body).unwrap_or_else(|| raw.to_owned());
        if parsed.body.is_some() {
            parsed = serde_json::from_str(raw.get()).map_err(no_object)?;
        }
        let incomplete =
            || Error::new(format!("the reply has no `request_id` or no `is_cold`: {}", excerpt(reply)));
        self.request_id = parsed.request_id.ok_or_else(incomplete)?;
        self.stats.cold_start = parsed.is_cold.ok_or_else(incomplete)?;
        let epoch_us = |time: Option<&RawValue>| time.and_then(|time| decimal_us(time.get()));
        self.times.benchmark =
            epoch_us(parsed.end).zip(epoch_us(parsed.begin)).and_then(|(end, begin)| end.checked_sub(begin));
        self.times.initialization = parsed.init_us.filter(|us| *us > 0);
        self.invocation.handler_us = parsed.handler_us;
        self.invocation.cpu_us = parsed.cpu_us;
        self.invocation.container_id = parsed.container_id;
        self.output = raw;
        Ok(())
    }

    /// The handler's own return value, as JSON; `None` where none came.
    pub fn handler_output(&self) -> Option<&RawValue> {
        #[derive(Deserialize)]
        struct Outer<'a> {
            #[serde(borrow)]
            result: Inner<'a>,
        }
        #[derive(Deserialize)]
        struct Inner<'a> {
            #[serde(borrow)]
            output: &'a RawValue,
        }
        serde_json::from_str::<Outer<'_>>(self.output.get()).ok().map(|reply| reply.result.output)
    }

    /// Takes in a reading of its instance's memory within it; its peak is the highest of all.
    pub fn raise_memory_peak(&mut self, bytes: Option<u64>) {
        let peak = self.invocation.memory_peak_bytes.max(bytes);
        self.invocation.memory_peak_bytes = peak;
        self.stats.memory_used = peak.map(|bytes| bytes as f64 / 1e6);
    }

    /// Fills in what a cloud would charge for: the function's memory limit, for the time in its handler, in ms begun.
    ///
    /// `limit_mb` is 0 where there is none; then the peak is charged for, in MB of 2²⁰ bytes begun, once it is known. What
    /// failed is not charged for.
    pub fn bill(&mut self, limit_mb: u64) {
        const MIB: u64 = 1 << 20;
        let peak_mb = self.invocation.memory_peak_bytes.map(|bytes| bytes.div_ceil(MIB));
        let memory = if limit_mb > 0 { Some(limit_mb) } else { peak_mb };
        let handler_us = self.invocation.handler_us.filter(|_| !self.stats.failure);
        let (Some(memory), Some(handler_us)) = (memory, handler_us) else { return };
        let billed_ms = handler_us.div_ceil(1000);
        self.billing = ExecutionBilling {
            memory: Some(memory),
            billed_time: Some(billed_ms),
            gb_seconds: memory as f64 / 1024.0 * billed_ms as f64 / 1000.0,
        };
    }

    /// Marks the invocation as failed if its server says that it was no cold start.
    pub fn demand_cold_start(&mut self) {
        if !self.stats.failure && !self.stats.cold_start {
            self.fail(
                "it was to be a cold start, and the function server says that it was warm (the servers of SeBS's own \
                 images say so of each)",
            );
        }
    }

    /// Takes back what the answer says of times and of a cold start, since another than the instance gave it: it `is_cold`
    /// if the instance had served none before. What was answered stays, to be looked at.
    pub(crate) fn disown_answer(&mut self, is_cold: bool) {
        self.stats.cold_start = is_cold;
        (self.times.benchmark, self.times.initialization) = (None, None);
        let invocation = &mut self.invocation;
        (invocation.handler_us, invocation.cpu_us, invocation.init_us) = (None, None, None);
    }

    /// Marks the invocation as failed, and why.
    pub fn fail(&mut self, reason: impl Into<String>) {
        self.stats.failure = true;
        self.invocation.error = Some(reason.into());
    }
}

/// What the function server replies, as far as it is looked into.
#[derive(Deserialize)]
struct Reply<'a> {
    request_id: Option<String>,
    is_cold: Option<bool>,
    #[serde(borrow)]
    begin: Option<&'a RawValue>,
    #[serde(borrow)]
    end: Option<&'a RawValue>,
    init_us: Option<u64>,
    handler_us: Option<u64>,
    cpu_us: Option<u64>,
    container_id: Option<String>,
    /// Where some of SeBS's servers put all of that.
    #[serde(borrow)]
    body: Option<&'a RawValue>,
}

/// What is under `body`, as an object or as text; `None`: text that is no JSON.
fn unwrap_body(body: &RawValue) -> Option<Box<RawValue>> {
    let text = serde_json::from_str::<String>(body.get()).unwrap_or_else(|_| body.get().to_string());
    RawValue::from_string(text).ok()
}

/// What `output` holds where no reply came.
fn no_output() -> Box<RawValue> {
    RawValue::from_string(r#"{"result": {}}"#.to_string()).expect("this is JSON")
}

/// The start of a reply, for an error's text.
fn excerpt(reply: &[u8]) -> String {
    const LENGTH: usize = 200;
    let text = String::from_utf8_lossy(&reply[..reply.len().min(LENGTH)]).replace(['\n', '\r'], " ");
    if reply.is_empty() {
        "it is empty".to_string()
    } else if reply.len() > LENGTH {
        format!("`{text}…`")
    } else {
        format!("`{text}`")
    }
}

/// µs of a number of seconds written as a decimal, with or without quotes: `"1700000000.123456"`. Digits beyond the
/// sixth are cut off; no floating-point number is in between, which could not hold them.
fn decimal_us(json: &str) -> Option<u64> {
    let text = json.trim_matches('"');
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits: String = fraction.chars().chain(std::iter::repeat('0')).take(6).collect();
    whole.parse::<u64>().ok()?.checked_mul(1_000_000)?.checked_add(digits.parse().ok()?)
}

/// SeBS's way to write an absent integer.
mod zero_is_absent {
    use super::*;

    pub(super) fn serialize<S: Serializer>(value: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(value.unwrap_or(0))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
        Ok(Option::<u64>::deserialize(deserializer)?.filter(|value| *value != 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPLY: &str = r#"{"begin": "1700000000.999999", "end": "1700000001.000101", "request_id": "r-1",
        "is_cold": true, "result": {"output": {"result": 12345678901234567890123}}, "init_us": 900,
        "handler_us": 100, "cpu_us": 90, "container_id": "c"}"#;

    #[test]
    fn our_servers_reply_is_taken_in_without_a_digit_lost() {
        let mut result = ExecutionResult::empty();
        result.parse_reply(REPLY.as_bytes()).unwrap();
        assert_eq!(result.request_id, "r-1");
        assert!(result.stats.cold_start && !result.stats.failure);
        assert_eq!(result.times.benchmark, Some(102));
        assert_eq!(result.times.initialization, Some(900));
        assert_eq!(result.invocation.handler_us, Some(100));
        assert_eq!(result.handler_output().unwrap().get(), r#"{"result": 12345678901234567890123}"#);
        let text = serde_json::to_string(&result).unwrap();
        assert!(text.contains("12345678901234567890123"));
        let again: ExecutionResult = serde_json::from_str(&text).unwrap();
        assert_eq!(again.times, result.times);
        assert_eq!(again.output.get(), result.output.get());
    }

    #[test]
    fn sebs_servers_are_understood() {
        let node =
            br#"{"body": "{\"begin\": \"1700000000.120\", \"end\": 1700000001.1, \"request_id\": \"n\", \"is_cold\": false, \"result\": {\"output\": 1}}"}"#;
        let mut result = ExecutionResult::empty();
        result.parse_reply(node).unwrap();
        assert_eq!(result.times.benchmark, Some(980_000));
        assert_eq!(result.invocation.handler_us, None);
        assert_eq!(result.handler_output().unwrap().get(), "1");
        let wrapped = br#"{"body": {"request_id": "o", "is_cold": false}}"#;
        result.parse_reply(wrapped).unwrap();
        assert_eq!(result.request_id, "o");
    }

    #[test]
    fn a_reply_that_is_not_one_says_what_came_instead() {
        for (reply, reason) in [
            (&b"<html>Internal error</html>"[..], "<html>Internal error"),
            (b"", "it is empty"),
            (b"[1]", "not a JSON object"),
            (br#"{"result": "boom"}"#, "`request_id`"),
            (b"\xff\xfe", "not UTF-8"),
        ] {
            let error = ExecutionResult::empty().parse_reply(reply).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn absent_numbers_are_written_the_way_sebs_does() {
        let mut result = ExecutionResult::empty();
        result.fail("timed out after 10 s");
        let json = serde_json::to_value(&result).unwrap();
        assert_eq!(json["times"]["benchmark"], 0);
        assert_eq!(json["billing"]["_memory"], serde_json::Value::Null);
        assert_eq!(json["stats"]["memory_used"], serde_json::Value::Null);
        assert_eq!(json["invocation"]["error"], "timed out after 10 s");
        assert_eq!(json["output"], serde_json::json!({"result": {}}));
    }

    #[test]
    fn what_is_charged_for_is_the_limit_or_else_the_peak() {
        let mut result = ExecutionResult::empty();
        result.bill(256);
        assert_eq!(result.billing, ExecutionBilling::default());
        result.invocation.handler_us = Some(1_500_001);
        result.bill(256);
        let expected = |memory, gb_seconds| ExecutionBilling {
            memory: Some(memory),
            billed_time: Some(1501),
            gb_seconds,
        };
        assert_eq!(result.billing, expected(256, 0.25 * 1.501));
        result.raise_memory_peak(Some((64 << 20) + 1));
        result.raise_memory_peak(Some(1));
        result.raise_memory_peak(None);
        assert_eq!(result.stats.memory_used, Some(67.108865));
        result.bill(0);
        assert_eq!(result.billing, expected(65, 65.0 / 1024.0 * 1.501));
        let mut failed = ExecutionResult::empty();
        failed.invocation.handler_us = Some(1);
        failed.fail("boom");
        failed.bill(256);
        assert_eq!(failed.billing, ExecutionBilling::default());
    }

    #[test]
    fn decimals_are_read_exactly() {
        assert_eq!(decimal_us("\"1700000000.123456\""), Some(1_700_000_000_123_456));
        assert_eq!(decimal_us("1700000000"), Some(1_700_000_000_000_000));
        assert_eq!(decimal_us("\"1.5\""), Some(1_500_000));
        assert_eq!(decimal_us("\"1.1234569\""), Some(1_123_456));
        assert_eq!(decimal_us("\"-1.5\""), None);
        assert_eq!(decimal_us("\"now\""), None);
        assert_eq!(decimal_us("\"1.+5\""), None);
    }
}
