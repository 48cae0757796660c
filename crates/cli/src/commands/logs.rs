//! `logs`

use crate::command::Invocation;
use crate::failure::{Failure, Outcome};
use crate::flags::flags;
use crate::stream::Output;
use crate::value::Value;

flags! {
    /// Flags of `logs`.
    LogsFlags {
        details: bool, "details", "Show extra details provided to logs";
        follow: bool, ['f'] "follow", "Follow log output";
        since: String, "since", "Show logs since timestamp (e.g. \"2013-01-02T13:23:37Z\") or relative (e.g. \"42m\" for 42 minutes)";
        tail: Option<String>, ['n'] "tail", "Number of lines to show from the end of the logs (default \"all\")";
        timestamps: bool, ['t'] "timestamps", "Show timestamps";
        until: String, "until", "Show logs before a timestamp (e.g. \"2013-01-02T13:23:37Z\") or relative (e.g. \"42m\" for 42 minutes)";
    }
}

/// `logs`
pub(crate) async fn logs(invocation: Invocation) -> Outcome {
    let (flags, words) = invocation.parse::<LogsFlags>()?;
    let since = moment(&flags.since)?;
    let until = moment(&flags.until)?;
    let client = invocation.cli.client().await?;
    let container: Value = client.get(format!("/containers/{}/json", words[0])).receive().await?;
    let mut answer = client
        .get(format!("/containers/{}/logs", container.get("Id").str()))
        .query_if("stdout", true)
        .query_if("stderr", true)
        .query_if("details", flags.details)
        .query_if("follow", flags.follow)
        .query_if("timestamps", flags.timestamps)
        .query_some("since", since)
        .query_some("until", until)
        .query("tail", flags.tail.as_deref().unwrap_or("all"))
        .send()
        .await?;
    let mut output = Output::new(container.path(&["Config", "Tty"]).bool());
    while let Some(chunk) = answer.chunk().await? {
        output.write(&chunk)?;
    }
    Ok(())
}

/// A moment as the API reads it: seconds with nine digits of fraction. Relative ones count back
/// from now. `None` for no text.
pub(super) fn moment(text: &str) -> Outcome<Option<String>> {
    if text.is_empty() {
        return Ok(None);
    }
    if let Some(span) = silo_types::duration::parse_go(text).filter(|_| !is_number(text)) {
        let now = silo_types::time::now();
        let then = jiff::SignedDuration::try_from(span)
            .ok()
            .and_then(|span| now.checked_sub(span).ok())
            .unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        return Ok(Some(seconds(then)));
    }
    if is_number(text) {
        return Ok(Some(text.to_owned()));
    }
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Ok(Some(seconds(time)));
    }
    // Without a zone the time is local; without a time it is midnight.
    let zone = jiff::tz::TimeZone::system();
    let local = text
        .parse::<jiff::civil::DateTime>()
        .or_else(|_| text.parse::<jiff::civil::Date>().map(|date| date.at(0, 0, 0, 0)));
    match local.ok().and_then(|local| local.to_zoned(zone).ok()) {
        Some(time) => Ok(Some(seconds(time.timestamp()))),
        None => Err(Failure::new(format!("failed to parse value as time or duration: \"{text}\""))),
    }
}

fn is_number(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
        && text.bytes().any(|byte| byte.is_ascii_digit())
}

fn seconds(time: jiff::Timestamp) -> String {
    format!("{}.{:09}", time.as_second(), time.subsec_nanosecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments() {
        assert_eq!(moment("").unwrap(), None);
        assert_eq!(moment("1700000000").unwrap().unwrap(), "1700000000");
        assert_eq!(moment("1700000000.5").unwrap().unwrap(), "1700000000.5");
        assert_eq!(moment("2023-11-14T22:13:20.25Z").unwrap().unwrap(), "1700000000.250000000");
        assert!(moment("10m").unwrap().unwrap().contains('.'));
        assert!(moment("2023-11-14").is_ok());
        assert!(moment("yesterday").is_err());
    }
}
