//! A build as one JSON object a line, in the form of BuildKit's `rawjson`.

use base64::Engine as _;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use silo_buildkit::client::{Stream, Update};

/// News as a line.
pub(super) fn line(update: &Update) -> String {
    let mut object = Map::new();
    let mut put = |name: &str, list: Vec<Value>| {
        if !list.is_empty() {
            object.insert(name.to_owned(), Value::Array(list));
        }
    };
    let vertices = update.vertices.iter().map(|vertex| {
        let mut value = json!({"digest": vertex.digest.to_string(), "name": vertex.name});
        if !vertex.inputs.is_empty() {
            let inputs = vertex.inputs.iter().map(ToString::to_string);
            value["inputs"] = inputs.collect();
        }
        set_time(&mut value, "started", vertex.started);
        set_time(&mut value, "completed", vertex.completed);
        if vertex.cached {
            value["cached"] = json!(true);
        }
        if !vertex.error.is_empty() {
            value["error"] = json!(vertex.error);
        }
        value
    });
    put("vertexes", vertices.collect());
    let statuses = update.statuses.iter().map(|status| {
        let mut value =
            json!({"id": status.id, "vertex": status.vertex.to_string(), "current": status.current});
        if status.total != 0 {
            value["total"] = json!(status.total);
        }
        set_time(&mut value, "timestamp", Some(status.at));
        set_time(&mut value, "started", status.started);
        set_time(&mut value, "completed", status.completed);
        value
    });
    put("statuses", statuses.collect());
    let logs = update.logs.iter().map(|log| {
        let data = base64::engine::general_purpose::STANDARD.encode(&log.data);
        let stream = match log.stream {
            Stream::Stdout => 1,
            Stream::Stderr => 2,
        };
        let vertex = log.vertex.to_string();
        let mut value = json!({"vertex": vertex, "stream": stream, "data": data});
        set_time(&mut value, "timestamp", Some(log.at));
        value
    });
    put("logs", logs.collect());
    put("warnings", update.warnings.iter().map(|text| json!({"short": text})).collect());
    format!("{}\n", Value::Object(object))
}

fn set_time(value: &mut Value, name: &str, time: Option<Timestamp>) {
    if let Some(time) = time {
        value[name] = json!(time.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::super::trace::tests::{log, vertex};
    use super::*;

    #[test]
    fn news_are_one_line() {
        let text = line(&log("a", "hi\n", 0));
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["logs"][0]["data"], "aGkK");
        assert_eq!(value["logs"][0]["timestamp"], "2023-11-14T22:13:20Z");
        assert!(value.get("vertexes").is_none());
        let text = line(&vertex("a", Some(0), None));
        assert_eq!(text.matches('\n').count(), 1);
        assert!(text.contains("\"started\"") && !text.contains("\"completed\""));
    }
}
