//! Answers of token servers (Docker's token authentication specification, and OAuth 2).

use std::time::{Duration, Instant};

use serde::Deserialize;

/// The largest answer of a token server, in bytes.
pub const MAX_TOKEN: usize = 256 << 10;
/// How long a token is good if nobody says it (the specification's number).
const DEFAULT_LIFE: Duration = Duration::from_mins(1);
/// The longest time that a token is used.
const LONGEST_LIFE: Duration = Duration::from_hours(12);

#[derive(Deserialize)]
struct Body {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
    #[serde(default)]
    expires_in: Option<i64>,
    #[serde(default)]
    refresh_token: Option<String>,
}

/// A token and how long to use it.
#[derive(Clone)]
pub(crate) struct Token {
    /// The value of `Authorization`.
    pub(crate) header: String,
    pub(crate) until: Instant,
    /// What stands for the password from now on, if the server gave it.
    pub(crate) refresh: String,
}

impl std::fmt::Debug for Token {
    // A secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("until", &self.until).finish_non_exhaustive()
    }
}

impl Token {
    /// Reads an answer that came at `now`.
    pub(crate) fn read(body: &[u8], now: Instant) -> Result<Self, String> {
        let body: Body = serde_json::from_slice(body)
            .map_err(|error| format!("unable to decode token response: {error}"))?;
        let some = |text: Option<String>| text.filter(|text| !text.is_empty());
        let value = some(body.token).or_else(|| some(body.access_token));
        // docker wording
        let value = value.ok_or("authorization server did not include a token in the response")?;
        if !value.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("the token is not one".to_owned());
        }
        let life = match body.expires_in.map(u64::try_from) {
            None | Some(Err(_) | Ok(0)) => DEFAULT_LIFE,
            Some(Ok(seconds)) => Duration::from_secs(seconds).min(LONGEST_LIFE),
        };
        // Before its end: requests take time, and clocks differ.
        let until = now + life * 9 / 10;
        let refresh = body.refresh_token.unwrap_or_default();
        Ok(Self { header: format!("Bearer {value}"), until, refresh })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let now = Instant::now();
        for (body, header, seconds) in [
            (r#"{"token":"a.b-c","expires_in":300}"#, "Bearer a.b-c", 270),
            (r#"{"access_token":"x","expires_in":10,"issued_at":"2020"}"#, "Bearer x", 9),
            (r#"{"token":"","access_token":"x"}"#, "Bearer x", 54),
            (r#"{"token":"x","expires_in":-5}"#, "Bearer x", 54),
            (r#"{"token":"x","expires_in":9999999999999}"#, "Bearer x", 38_880),
        ] {
            let token = Token::read(body.as_bytes(), now).unwrap();
            assert_eq!(token.header, header);
            assert_eq!(token.until - now, Duration::from_secs(seconds), "{body}");
        }
        for bad in ["", "{}", "[]", r#"{"token":null}"#, r#"{"token":"a\nb"}"#, r#"{"token":1}"#] {
            assert!(Token::read(bad.as_bytes(), now).is_err(), "{bad}");
        }
        let token = Token::read(br#"{"token":"secret"}"#, now).unwrap();
        assert!(!format!("{token:?}").contains("secret"));
    }
}
