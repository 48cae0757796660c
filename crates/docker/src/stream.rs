//! The JSON lines by which long verbs (load, import, pull, build) report progress.

use crate::empty;

/// One line of progress.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StreamMessage {
    /// Output of a build or load.
    #[serde(skip_serializing_if = "empty")]
    pub stream: String,
    /// What goes on.
    #[serde(skip_serializing_if = "empty")]
    pub status: String,
    /// How far it is.
    #[serde(skip_serializing_if = "empty")]
    pub progress_detail: Option<ProgressDetail>,
    /// The same as a drawn bar.
    #[serde(skip_serializing_if = "empty")]
    pub progress: String,
    /// The layer or step it is about.
    #[serde(skip_serializing_if = "empty")]
    pub id: String,
    /// Why it failed; the last line.
    #[serde(skip_serializing_if = "empty")]
    pub error_detail: Option<StreamError>,
    /// The same as plain text.
    #[serde(skip_serializing_if = "empty")]
    pub error: String,
    /// A result, such as the id of a built image.
    #[serde(skip_serializing_if = "empty")]
    pub aux: Option<serde_json::Value>,
}

impl StreamMessage {
    /// A line with `stream` text.
    pub fn stream(text: impl Into<String>) -> Self {
        Self { stream: text.into(), ..Self::default() }
    }

    /// A line with `status` text.
    pub fn status(text: impl Into<String>) -> Self {
        Self { status: text.into(), ..Self::default() }
    }

    /// A line about so many of so many bytes, with the bar that dockerd draws for clients which
    /// draw none.
    pub fn progress(id: &str, status: &str, current: i64, total: i64) -> Self {
        Self {
            id: id.to_owned(),
            progress: bar(current, total),
            progress_detail: Some(ProgressDetail { current, total }),
            ..Self::status(status)
        }
    }

    /// The line that ends a failed stream.
    pub fn failure(message: impl Into<String>) -> Self {
        let message = message.into();
        let error_detail = Some(StreamError { code: 0, message: message.clone() });
        Self { error_detail, error: message, ..Self::default() }
    }
}

/// Width of a drawn bar.
const BAR: usize = 50;

/// Progress as dockerd draws it: `[====>     ]  1.05MB/10.5MB`.
fn bar(current: i64, total: i64) -> String {
    if current <= 0 && total <= 0 {
        return String::new();
    }
    if total <= 0 {
        return format!("{:>8}", human_size(current));
    }
    let done = i128::from(current.max(0)) * 100 / i128::from(total) / 2;
    let done = usize::try_from(done).unwrap_or(BAR).min(BAR);
    let numbers = if current > total {
        format!("{:>8}", human_size(current))
    } else {
        format!("{:>8}/{}", human_size(current), human_size(total))
    };
    format!("[{}>{}] {numbers}", "=".repeat(done), " ".repeat(BAR - done))
}

/// Four digits with a unit of 1000, as Docker's `units.HumanSize`.
fn human_size(count: i64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let count = u64::try_from(count).unwrap_or(0);
    let (mut unit, mut factor) = (0, 1_u64);
    while count / factor >= 1000 && unit + 1 < UNITS.len() {
        (unit, factor) = (unit + 1, factor * 1000);
    }
    let whole = count / factor;
    // So many digits behind the point that there are four in all.
    let digits = 4 - whole.to_string().len().min(4);
    let scale = 10_u128.pow(u32::try_from(digits).unwrap_or(0));
    let (count, factor) = (u128::from(count), u128::from(factor));
    let scaled = (count * scale + factor / 2) / factor;
    let rest = scaled % scale;
    let (whole, unit) = (scaled / scale, UNITS[unit]);
    if rest == 0 {
        return format!("{whole}{unit}");
    }
    let rest = format!("{rest:0digits$}");
    format!("{whole}.{}{unit}", rest.trim_end_matches('0'))
}

/// Progress as numbers.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct ProgressDetail {
    /// Done so far.
    #[serde(skip_serializing_if = "empty")]
    pub current: i64,
    /// Of how much.
    #[serde(skip_serializing_if = "empty")]
    pub total: i64,
}

/// An error inside a stream.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct StreamError {
    /// Exit code of a build step.
    #[serde(skip_serializing_if = "empty")]
    pub code: i64,
    /// For people.
    pub message: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (count, expected) in [
            (0, "0B"),
            (512, "512B"),
            (1000, "1kB"),
            (32_768, "32.77kB"),
            (1_050_000, "1.05MB"),
            (10_485_760, "10.49MB"),
            (123_456_789, "123.5MB"),
            (3_900_000_000, "3.9GB"),
            (i64::MAX, "9.223EB"),
        ] {
            assert_eq!(human_size(count), expected);
        }
    }

    #[test]
    fn bars() {
        let empty = " ".repeat(50);
        assert_eq!(bar(0, 0), "");
        assert_eq!(bar(2048, 0), " 2.048kB");
        assert_eq!(bar(0, 1000), format!("[>{empty}]       0B/1kB"));
        let half = format!("[{}>{}]     500B/1kB", "=".repeat(25), " ".repeat(25));
        assert_eq!(bar(500, 1000), half);
        assert_eq!(bar(1000, 1000), format!("[{}>]      1kB/1kB", "=".repeat(50)));
        assert_eq!(bar(3000, 1000), format!("[{}>]      3kB", "=".repeat(50)));
        let line = StreamMessage::progress("abc", "Downloading", 500, 1000);
        assert_eq!(
            serde_json::to_string(&line).unwrap(),
            format!(
                r#"{{"status":"Downloading","progressDetail":{{"current":500,"total":1000}},"progress":"{half}","id":"abc"}}"#
            )
        );
    }
}
