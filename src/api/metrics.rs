//! What was answered, in Prometheus's text format.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Upper bounds of the histogram, in seconds.
const BOUNDS: [f64; 9] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];

#[derive(Default)]
struct Times {
    buckets: [u64; BOUNDS.len()],
    count: u64,
    sum: Duration,
}

/// The counts.
#[derive(Default)]
pub struct Metrics {
    /// By action and code.
    requests: Mutex<BTreeMap<(String, String), u64>>,
    /// By action.
    times: Mutex<BTreeMap<String, Times>>,
}

impl Metrics {
    /// Counts an answer. Actions and codes are names that we gave, of which there are few.
    pub fn count(&self, action: &str, error: Option<&str>, took: Duration) {
        let key = (action.to_owned(), error.unwrap_or("ok").to_owned());
        *self.requests.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default() += 1;
        let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        let times = times.entry(action.to_owned()).or_default();
        for (bucket, bound) in times.buckets.iter_mut().zip(BOUNDS) {
            *bucket += u64::from(took.as_secs_f64() <= bound);
        }
        times.count += 1;
        times.sum += took;
    }

    /// All of it.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        text.push_str("# HELP amiboot_requests_total Requests answered.\n# TYPE amiboot_requests_total counter\n");
        for ((action, code), count) in &*self.requests.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = writeln!(text, "amiboot_requests_total{{action=\"{action}\",code=\"{code}\"}} {count}");
        }
        text.push_str(
            "# HELP amiboot_request_seconds How long answers took.\n# TYPE amiboot_request_seconds histogram\n",
        );
        for (action, times) in &*self.times.lock().unwrap_or_else(PoisonError::into_inner) {
            let at = format!("action=\"{action}\"");
            for (bucket, bound) in times.buckets.iter().zip(BOUNDS) {
                let _ = writeln!(text, "amiboot_request_seconds_bucket{{{at},le=\"{bound}\"}} {bucket}");
            }
            let _ = writeln!(text, "amiboot_request_seconds_bucket{{{at},le=\"+Inf\"}} {}", times.count);
            let _ = writeln!(text, "amiboot_request_seconds_sum{{{at}}} {}", times.sum.as_secs_f64());
            let _ = writeln!(text, "amiboot_request_seconds_count{{{at}}} {}", times.count);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_by_action_and_code() {
        let metrics = Metrics::default();
        metrics.count("RunInstances", None, Duration::from_millis(3));
        metrics.count("RunInstances", Some("InvalidAMIID.NotFound"), Duration::from_secs(60));
        let text = metrics.text();
        for line in [
            "amiboot_requests_total{action=\"RunInstances\",code=\"ok\"} 1",
            "amiboot_requests_total{action=\"RunInstances\",code=\"InvalidAMIID.NotFound\"} 1",
            "amiboot_request_seconds_bucket{action=\"RunInstances\",le=\"0.001\"} 0",
            "amiboot_request_seconds_bucket{action=\"RunInstances\",le=\"0.005\"} 1",
            "amiboot_request_seconds_bucket{action=\"RunInstances\",le=\"+Inf\"} 2",
            "amiboot_request_seconds_sum{action=\"RunInstances\"} 60.003",
        ] {
            assert!(text.lines().any(|have| have == line), "{line} in {text}");
        }
    }
}
