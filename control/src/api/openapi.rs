//! The OpenAPI document: made from the routes, with what is the same for all of them added here.
//!
//! It is committed as docs/reference/openapi.json, and a test compares.

use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Content, InfoBuilder, OpenApi, Ref, RefOr, Required, ResponseBuilder, ServerBuilder};

use super::{PROBLEM_JSON, ProblemDocument, routes};

/// The document, as a value.
#[must_use]
pub fn document() -> OpenApi {
    let (_, mut api) = routes().split_for_parts();
    api.info = InfoBuilder::new()
        .title("Shunt")
        .version("1")
        .description(Some(
            "Virtual machines whose virtual network changes while they run. Changes that hosts and guests have to follow \
             answer with an operation. Errors are problem documents (RFC 9457).",
        ))
        .build();
    api.servers = Some(vec![ServerBuilder::new().url("/").build()]);
    api.security = Some(vec![SecurityRequirement::new("token", [] as [&str; 0])]);
    let components = api.components.get_or_insert_default();
    let scheme = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("A token of a tenant, or of an administrator"))
        .build();
    components.add_security_scheme("token", SecurityScheme::Http(scheme));
    let name = <ProblemDocument as utoipa::ToSchema>::name().into_owned();
    components.schemas.insert(name.clone(), <ProblemDocument as utoipa::PartialSchema>::schema());
    for item in api.paths.paths.values_mut() {
        for operation in operations(item) {
            complete(operation, &name);
        }
    }
    api
}

/// The document, as it is served and committed.
pub(super) fn text() -> String {
    // A value made of strings and maps: this cannot fail.
    let mut text = document().to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.post, &mut item.patch, &mut item.put, &mut item.delete].into_iter().flatten()
}

/// What every operation has: the header that names a tenant, and problems.
fn complete(operation: &mut Operation, problem: &str) {
    let content = Content::builder().schema(Some(Ref::from_schema_name(problem))).build();
    let response = ResponseBuilder::new()
        .description("Why it was not done")
        .content(PROBLEM_JSON, content)
        .header("WWW-Authenticate", HeaderBuilder::new().schema(Some(text_schema(None))).build());
    operation.responses.responses.insert("default".into(), RefOr::T(response.build()));
    operation.parameters.get_or_insert_default().push(RefOr::T(tenant_header()));
}

fn tenant_header() -> Parameter {
    ParameterBuilder::new()
        .name("Shunt-Tenant")
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some("For administrators: the name or id of the tenant to act for"))
        .schema(Some(text_schema(Some(64))))
        .build()
}

fn text_schema(longest: Option<usize>) -> RefOr<utoipa::openapi::Schema> {
    ObjectBuilder::new().schema_type(Type::String).max_length(longest).build().into()
}
