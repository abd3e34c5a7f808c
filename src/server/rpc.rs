//! JSON-RPC 2.0 (<https://www.jsonrpc.org/specification>): text to calls, outcomes to text.
//!
//! Pure. It knows no method and no connection.

use serde_json::{Value, json};

/// The calls in one batch. Every entry, even a wrong one, is owed an answer that is larger than itself.
const LARGEST_BATCH: usize = 100;

/// What went wrong, §5.1.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Fault {
    pub(super) code: i32,
    pub(super) message: String,
}

impl Fault {
    pub(super) const PARSE_ERROR: i32 = -32700;
    pub(super) const INVALID_REQUEST: i32 = -32600;
    pub(super) const METHOD_NOT_FOUND: i32 = -32601;
    pub(super) const INVALID_PARAMS: i32 = -32602;
    pub(super) const INTERNAL_ERROR: i32 = -32603;
    /// Of the range that is left to servers: the command is not on the allow list.
    pub(super) const NOT_ALLOWED: i32 = -32001;
    /// The command cannot be started.
    pub(super) const CANNOT_START: i32 = -32002;
    /// The session runs as many commands as it may.
    pub(super) const BUSY: i32 = -32003;

    pub(super) fn new(code: i32, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

/// A request or a notification, §4.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Call {
    /// `None`: a notification, which is never answered.
    pub(super) id: Option<Value>,
    pub(super) method: String,
    /// An array or an object, if there are any.
    pub(super) params: Option<Value>,
}

/// One entry of a message.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Entry {
    Call(Call),
    /// Not a call: this is its answer.
    Wrong(Value),
}

/// One message.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Message {
    One(Entry),
    /// §6; never empty.
    Batch(Vec<Entry>),
}

impl Message {
    /// Its entries in order.
    pub(super) fn entries(&self) -> &[Entry] {
        match self {
            Self::One(entry) => std::slice::from_ref(entry),
            Self::Batch(entries) => entries,
        }
    }
}

/// Reads a message. What is wrong with it is part of the result.
pub(super) fn read(text: &[u8]) -> Message {
    let wrong = |code, message: String| {
        Message::One(Entry::Wrong(answer(
            &Value::Null,
            Err(Fault::new(code, message)),
        )))
    };
    match serde_json::from_slice(text) {
        Err(error) => wrong(Fault::PARSE_ERROR, format!("parse error: {error}")),
        Ok(Value::Array(entries)) if entries.is_empty() => {
            wrong(Fault::INVALID_REQUEST, "empty batch".to_owned())
        }
        Ok(Value::Array(entries)) if entries.len() > LARGEST_BATCH => wrong(
            Fault::INVALID_REQUEST,
            format!("a batch has at most {LARGEST_BATCH} calls"),
        ),
        Ok(Value::Array(entries)) => Message::Batch(entries.into_iter().map(entry).collect()),
        Ok(value) => Message::One(entry(value)),
    }
}

fn entry(value: Value) -> Entry {
    let Value::Object(mut members) = value else {
        return invalid(&Value::Null, "a call is an object");
    };
    let id = members.remove("id");
    // §5: an id that cannot be told is answered as null.
    let known = match &id {
        Some(id @ (Value::String(_) | Value::Number(_))) => id.clone(),
        None | Some(Value::Null) => Value::Null,
        Some(Value::Bool(_) | Value::Array(_) | Value::Object(_)) => {
            return invalid(&Value::Null, "`id` is a string or a number");
        }
    };
    if members.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
        return invalid(&known, "`jsonrpc` must be \"2.0\"");
    }
    let Some(Value::String(method)) = members.remove("method") else {
        return invalid(&known, "`method` must be a string");
    };
    let params = members.remove("params");
    if !matches!(params, None | Some(Value::Array(_) | Value::Object(_))) {
        return invalid(&known, "`params` must be an array or an object");
    }
    Entry::Call(Call { id, method, params })
}

fn invalid(id: &Value, message: &str) -> Entry {
    Entry::Wrong(answer(
        id,
        Err(Fault::new(
            Fault::INVALID_REQUEST,
            format!("invalid request: {message}"),
        )),
    ))
}

/// A response object, §5.
pub(super) fn answer(id: &Value, outcome: Result<Value, Fault>) -> Value {
    match outcome {
        Ok(result) => json!({"jsonrpc": "2.0", "result": result, "id": id}),
        Err(fault) => json!({
            "jsonrpc": "2.0",
            "error": {"code": fault.code, "message": fault.message},
            "id": id,
        }),
    }
}

/// The text of a notification from the server.
pub(super) fn notification(method: &str, params: &Value) -> String {
    json!({"jsonrpc": "2.0", "method": method, "params": params}).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(text: &str) -> Vec<(Value, i64)> {
        read(text.as_bytes())
            .entries()
            .iter()
            .filter_map(|entry| match entry {
                Entry::Call(_) => None,
                Entry::Wrong(answer) => Some((
                    answer["id"].clone(),
                    answer["error"]["code"].as_i64().unwrap(),
                )),
            })
            .collect()
    }

    #[test]
    fn a_call_without_id_is_a_notification_and_with_null_is_not() {
        let call = |text: &str| match read(text.as_bytes()) {
            Message::One(Entry::Call(call)) => call,
            other @ (Message::One(_) | Message::Batch(_)) => panic!("{other:?}"),
        };
        assert_eq!(call(r#"{"jsonrpc":"2.0","method":"m"}"#).id, None);
        assert_eq!(
            call(r#"{"jsonrpc":"2.0","method":"m","id":null}"#).id,
            Some(Value::Null)
        );
        assert_eq!(
            call(r#"{"jsonrpc":"2.0","method":"m","id":"a","params":[1]}"#),
            Call {
                id: Some(json!("a")),
                method: "m".to_owned(),
                params: Some(json!([1])),
            }
        );
    }

    #[test]
    fn what_is_not_json_is_a_parse_error() {
        for text in [
            "",
            "{",
            r#"{"jsonrpc":"2.0","method"#,
            "\u{0}",
            &"[".repeat(500),
        ] {
            assert_eq!(codes(text), [(Value::Null, -32700)], "{text}");
        }
        assert!(matches!(read(&[0xff]), Message::One(Entry::Wrong(_))));
    }

    #[test]
    fn what_is_not_a_call_is_an_invalid_request() {
        for text in [
            "1",
            "null",
            "[]",
            r#"{"jsonrpc":"2.0","method":1,"params":"bar"}"#,
            r#"{"jsonrpc":"1.0","method":"m"}"#,
            r#"{"method":"m"}"#,
            r#"{"jsonrpc":"2.0","method":"m","params":3}"#,
            r#"{"jsonrpc":"2.0","method":"m","params":null}"#,
            r#"{"jsonrpc":"2.0","method":"m","id":{}}"#,
            r#"{"jsonrpc":"2.0","method":"m","id":true}"#,
        ] {
            assert_eq!(codes(text), [(Value::Null, -32600)], "{text}");
        }
        assert_eq!(
            codes(r#"{"jsonrpc":"2.0","id":7}"#),
            [(json!(7), -32600)],
            "an id that can be told is told"
        );
    }

    #[test]
    fn a_batch_keeps_its_entries_apart() {
        let batch = r#"[1, {"jsonrpc":"2.0","method":"m","id":1}, {"foo":"boo"}]"#;
        assert_eq!(read(batch.as_bytes()).entries().len(), 3);
        assert_eq!(codes(batch), [(Value::Null, -32600), (Value::Null, -32600)]);
        let large = format!("[{}1]", "1,".repeat(LARGEST_BATCH));
        assert_eq!(codes(&large), [(Value::Null, -32600)], "one answer for all");
    }

    #[test]
    fn answers_carry_result_or_error() {
        assert_eq!(
            answer(&json!(1), Ok(json!("x"))),
            json!({"jsonrpc": "2.0", "result": "x", "id": 1})
        );
        assert_eq!(
            answer(&json!("a"), Err(Fault::new(-1, "no"))),
            json!({"jsonrpc": "2.0", "error": {"code": -1, "message": "no"}, "id": "a"})
        );
    }
}
