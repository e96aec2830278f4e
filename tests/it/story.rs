//! Events of small sessions, as the webhook of OpenVidu 2.22 sends them, or as older versions did.

use serde_json::{Map, Value, json};

pub const START: i64 = 1_700_000_000_000;

/// Which fields a version sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Era {
    /// 2.9: no `uniqueSessionId`, `participantId` alone.
    Old,
    /// 2.17 and later.
    New,
}

/// A session being told.
pub struct Story {
    pub era: Era,
    pub id: String,
    pub start: i64,
    pub events: Vec<Value>,
}

impl Story {
    pub fn new(id: &str) -> Self {
        Self { era: Era::New, id: id.to_owned(), start: START, events: Vec::new() }
    }

    pub fn old(id: &str) -> Self {
        Self { era: Era::Old, ..Self::new(id) }
    }

    pub fn at(mut self, start: i64) -> Self {
        self.start = start;
        self
    }

    pub fn unique_id(&self) -> String {
        format!("{}_{}", self.id, self.start)
    }

    /// Any event, `seconds` after the start.
    pub fn tell(mut self, name: &str, seconds: i64, fields: Value) -> Self {
        let mut event = Map::new();
        event.insert("sessionId".into(), json!(self.id));
        if self.era == Era::New {
            event.insert("uniqueSessionId".into(), json!(self.unique_id()));
        }
        event.insert("timestamp".into(), json!(self.start + seconds * 1000));
        if let Some(connection) = fields.get("connectionId") {
            event.insert("participantId".into(), connection.clone());
        }
        for (name, value) in fields.as_object().unwrap() {
            if self.era == Era::New || name != "connectionId" {
                event.insert(name.clone(), value.clone());
            }
        }
        event.insert("event".into(), json!(name));
        self.events.push(Value::Object(event));
        self
    }

    fn ended(&self, from: i64, to: i64, reason: &str) -> Value {
        let mut fields = json!({ "startTime": self.start + from * 1000, "duration": to - from });
        if !reason.is_empty() {
            fields["reason"] = json!(reason);
        }
        fields
    }

    pub fn created(self) -> Self {
        self.tell("sessionCreated", 0, json!({}))
    }

    pub fn destroyed(self, at: i64, reason: &str) -> Self {
        let fields = self.ended(0, at, reason);
        self.tell("sessionDestroyed", at, fields)
    }

    fn person(connection: &str) -> Value {
        json!({
            "connectionId": connection, "location": "Rome, Italy", "ip": "93.184.216.34",
            "platform": "Chrome 88.0.4324.182 on Linux 64-bit", "clientData": format!("I am {connection}"), "serverData": "",
        })
    }

    pub fn joined(self, at: i64, connection: &str) -> Self {
        self.tell("participantJoined", at, Self::person(connection))
    }

    pub fn left(self, from: i64, at: i64, connection: &str, reason: &str) -> Self {
        let fields = merged(Self::person(connection), self.ended(from, at, reason));
        self.tell("participantLeft", at, fields)
    }

    fn media(connection: &str, stream: &str, from: Option<&str>) -> Value {
        let mut fields = json!({
            "streamId": stream, "connectionId": connection, "connection": if from.is_some() { "INBOUND" } else { "OUTBOUND" },
            "videoSource": "CAMERA", "videoFramerate": 30, "videoDimensions": "{\"width\":640,\"height\":480}",
            "audioEnabled": true, "videoEnabled": true,
        });
        if let Some(from) = from {
            fields["receivingFrom"] = json!(from);
        }
        fields
    }

    /// A stream from `from` on, sent by `sender` if there is one, else by the connection itself.
    pub fn stream(self, from: i64, connection: &str, stream: &str, sender: Option<&str>) -> Self {
        self.tell("webrtcConnectionCreated", from, Self::media(connection, stream, sender))
    }

    pub fn stream_end(
        self,
        (from, to): (i64, i64),
        connection: &str,
        stream: &str,
        sender: Option<&str>,
        reason: &str,
    ) -> Self {
        let fields = merged(Self::media(connection, stream, sender), self.ended(from, to, reason));
        self.tell("webrtcConnectionDestroyed", to, fields)
    }

    /// A change of a recording that began at second `from`.
    pub fn recording(self, at: i64, from: i64, status: &str, size: i64, duration: f64) -> Self {
        let mut fields = json!({
            "startTime": self.start + from * 1000, "id": self.id, "name": "R", "outputMode": "COMPOSED",
            "hasAudio": true, "hasVideo": true, "size": size, "duration": duration, "status": status,
        });
        if status != "started" {
            fields["reason"] = json!("recordingStoppedByServer");
        }
        self.tell("recordingStatusChanged", at, fields)
    }

    /// A `kms` document of the connection that names its user.
    pub fn user(mut self, at: i64, connection: &str, user: Value) -> Self {
        let mut event = json!({
            "elastic_type": "kms", "sessionId": self.id, "user": user, "connection": connection,
            "endpoint": format!("str_{connection}"), "type": "IceGatheringDone", "msSinceEndpointCreation": 5,
            "timestamp": self.start + at * 1000,
        });
        if self.era == Era::New {
            event["uniqueSessionId"] = json!(self.unique_id());
            event["connectionId"] = json!(connection);
        }
        self.events.push(event);
        self
    }

    /// Two people, both send, both receive, the first leaves, then the second.
    pub fn of_two(self) -> Self {
        self.created()
            .joined(1, "con_A")
            .stream(2, "con_A", "str_A", None)
            .joined(10, "con_B")
            .stream(11, "con_B", "str_A", Some("con_A"))
            .stream(12, "con_B", "str_B", None)
            .stream(13, "con_A", "str_B", Some("con_B"))
            .stream_end((11, 60), "con_B", "str_A", Some("con_A"), "disconnect")
            .stream_end((13, 60), "con_A", "str_B", Some("con_B"), "disconnect")
            .stream_end((2, 60), "con_A", "str_A", None, "disconnect")
            .left(1, 60, "con_A", "disconnect")
            .stream_end((12, 80), "con_B", "str_B", None, "networkDisconnect")
            .left(10, 80, "con_B", "networkDisconnect")
            .destroyed(80, "lastParticipantLeft")
    }

    pub fn lines(&self) -> Vec<String> {
        self.events.iter().map(Value::to_string).collect()
    }
}

pub fn merged(mut left: Value, right: Value) -> Value {
    left.as_object_mut().unwrap().extend(right.as_object().unwrap().clone());
    left
}

/// A webhook body as the line of a CDR file.
pub fn as_cdr(event: &Value) -> String {
    let mut payload = event.clone();
    let name = payload.as_object_mut().unwrap().remove("event").unwrap();
    json!({ name.as_str().unwrap(): payload }).to_string()
}
