//! What NGINX Plus's API answers where it cannot do what it is asked.

use super::json::{Json, object};

/// Something that cannot be done, and how that is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) status: u16,
    /// One of the API's words: `UpstreamNotFound`.
    pub(super) code: &'static str,
    pub(super) text: String,
}

/// Where the API is described.
const HREF: &str = "https://nginx.org/en/docs/http/ngx_http_api_module.html";

impl Fault {
    pub(super) fn new(status: u16, code: &'static str, text: impl Into<String>) -> Self {
        Self { status, code, text: text.into() }
    }

    /// There is no such path.
    pub(super) fn path() -> Self {
        Self::new(404, "PathNotFound", "path not found")
    }

    /// The first part of the path is no version.
    pub(super) fn version() -> Self {
        Self::new(404, "UnknownVersion", "unknown version")
    }

    /// A parameter that is not there, or has a value of the wrong kind.
    pub(super) fn format(text: impl Into<String>) -> Self {
        Self::new(400, "UpstreamConfFormatError", text)
    }

    /// The object that is sent. Before version 4 it had two members more, which are empty since.
    pub(super) fn object(&self, version: u32, request_id: String) -> Json {
        let (status, text) = (u64::from(self.status).into(), Json::from(self.text.clone()));
        let error = object([("status", status), ("text", text), ("code", self.code.into())]);
        let (id, href) = (Json::from(request_id), Json::from(HREF));
        if version < 4 {
            return object([
                ("path", "".into()),
                ("method", "".into()),
                ("error", error),
                ("request_id", id),
                ("href", href),
            ]);
        }
        object([("error", error), ("request_id", id), ("href", href)])
    }
}
