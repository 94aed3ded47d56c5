//! What handlers take from requests: bodies, parameters and headers, with errors that name the field.

use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::header::{CONTENT_TYPE, ETAG, HeaderName, IF_MATCH};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use axum::{Json, body::Bytes};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::ApiError;
use crate::store::Revision;
use crate::store::rows::Versioned;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// A JSON body.
pub(super) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        if !is_json(request.headers()) {
            return Err(ApiError::media_type());
        }
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| match rejection {
            BytesRejection::FailedToBufferBody(error) if error.status().as_u16() == 413 => {
                ApiError::too_large()
            }
            _ => ApiError::malformed("the body did not arrive whole", "body", "send it again"),
        })?;
        parse(&bytes).map(Self)
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let (path, inner) = (error.path().to_string(), error.inner());
        if inner.is_syntax() || inner.is_eof() {
            return ApiError::malformed(
                format!("the body is not JSON: {inner}"),
                "body",
                "send one JSON object",
            );
        }
        // The position is of no use to somebody whose program wrote the JSON.
        let text = inner.to_string();
        let what = text.split(" at line ").next().unwrap_or(&text);
        let field = if path == "." { unknown_field(what).unwrap_or("body") } else { &path };
        ApiError::invalid(field, what, "see the schema in /v1/openapi.json")
    })?;
    json.end().map_err(|_| {
        ApiError::malformed("something follows the JSON", "body", "send one JSON object and nothing else")
    })?;
    Ok(value)
}

/// The field that serde's sentence names.
fn unknown_field(text: &str) -> Option<&str> {
    text.strip_prefix("unknown field `").or_else(|| text.strip_prefix("missing field `"))?.split('`').next()
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}

/// Parameters behind the `?`.
pub(super) struct Params<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let query = Query::<T>::from_request_parts(parts, state).await.map_err(|rejection| {
            let text = rejection.body_text();
            let what = text.split_once(": ").map_or(text.as_str(), |(_, what)| what);
            let field = what.split(':').next().filter(|field| field.chars().all(is_word));
            let field = unknown_field(what).or(field).unwrap_or("query").to_owned();
            ApiError::invalid(field, what.to_owned(), "see the parameters in /v1/openapi.json")
        })?;
        Ok(Self(query.0))
    }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// The variable part of a path, or its parts.
pub(super) struct At<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for At<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Path::<T>::from_request_parts(parts, state).await {
            Ok(Path(value)) => Ok(Self(value)),
            Err(_) => Err(ApiError::no_such_path(parts.uri.path())),
        }
    }
}

/// `Idempotency-Key`: the same key with the same request is the same wish, however often it arrives.
pub(super) struct IdempotencyKey(pub(super) Option<String>);

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let Some(value) = parts.headers.get(IDEMPOTENCY_KEY) else { return Ok(Self(None)) };
        let text = value.to_str().ok().filter(|text| (1..=255).contains(&text.len()));
        text.map(|text| Self(Some(text.into()))).ok_or_else(|| {
            ApiError::invalid("Idempotency-Key", "it is no key", "send 1 to 255 printable ASCII characters")
        })
    }
}

/// `If-Match`: the entity tag that the thing must still have.
pub(super) struct IfMatch(Option<String>);

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let Some(value) = parts.headers.get(IF_MATCH) else { return Ok(Self(None)) };
        let text = value.to_str().map_err(|_| {
            ApiError::invalid("If-Match", "it is no entity tag", "send what ETag said, quotes included")
        })?;
        Ok(Self(Some(text.into())))
    }
}

impl IfMatch {
    /// # Errors
    /// `changed` when the row is at another revision than the caller has read.
    pub(super) fn check<T>(&self, noun: &str, row: &Versioned<T>) -> Result<(), ApiError> {
        match &self.0 {
            None => Ok(()),
            Some(tags) if tags.trim() == "*" => Ok(()),
            Some(tags) if tags.split(',').any(|tag| tag.trim() == tag_of(row.revision)) => Ok(()),
            Some(_) => Err(ApiError::changed(noun)),
        }
    }
}

/// A thing with its entity tag.
pub(super) struct Tagged<T>(pub(super) Revision, pub(super) T);

impl<T: Serialize> IntoResponse for Tagged<T> {
    fn into_response(self) -> Response {
        let mut response = Json(self.1).into_response();
        if let Ok(tag) = HeaderValue::from_str(&tag_of(self.0)) {
            response.headers_mut().insert(ETAG, tag);
        }
        response
    }
}

fn tag_of(revision: Revision) -> String {
    format!("\"{revision}\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        #[expect(dead_code, reason = "only its form matters")]
        inner: Inner,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        #[expect(dead_code, reason = "only its form matters")]
        number: u8,
    }

    #[test]
    fn errors_name_the_field() {
        let field = |text: &str| parse::<Outer>(text.as_bytes()).unwrap_err().document().field;
        assert_eq!(field(r#"{"inner": {"number": "x"}}"#).as_deref(), Some("inner.number"));
        assert_eq!(field(r#"{"inner": {"number": 256}}"#).as_deref(), Some("inner.number"));
        assert_eq!(field(r#"{"inner": {"number": 1, "x": 2}}"#).as_deref(), Some("inner.x"));
        assert_eq!(field(r#"{"outer": 1}"#).as_deref(), Some("outer"));
        assert_eq!(field("{}").as_deref(), Some("inner"));
        assert_eq!(field("{"), None);
        assert_eq!(field(r#"{"inner": {"number": 1}} x"#), None);
    }
}
