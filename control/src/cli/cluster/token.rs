//! `shunt token …`.

use clap::{Subcommand, ValueEnum};
use jiff::Timestamp;

use super::client::{Client, path};
use crate::api::{IssuedToken, NewToken, Page, TokenView};
use crate::cli::failure::Failure;
use crate::cli::output::{Out, or_dash, table};
use crate::model::Role;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Verb {
    /// List tokens; their secrets are nowhere
    List,
    /// Make a token; its secret is shown now and never again
    Create {
        /// What it allows
        #[arg(long, value_enum, default_value_t = Allows::Tenant)]
        role: Allows,
        /// What it is for
        #[arg(long, value_name = "TEXT", default_value = "")]
        note: String,
        /// When it ends, such as 2030-01-31T00:00:00Z [default: when it is revoked]
        #[arg(long, value_name = "TIME")]
        expires_at: Option<Timestamp>,
    },
    /// End a token
    Revoke {
        /// Its id
        token: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Allows {
    /// Everything, at all tenants
    Admin,
    /// Everything of one tenant
    Tenant,
    /// Look at everything of one tenant
    ReadOnly,
}

impl Verb {
    pub(super) fn run(self, client: &Client, out: &mut Out) -> Result<(), Failure> {
        match self {
            Self::List => {
                let page: Page<TokenView> = client.get(&path(&["tokens"]))?;
                out.value(&page, |page| {
                    let rows = page.items.iter().map(|token| {
                        vec![
                            token.id.clone(),
                            word(token.role).into(),
                            token.created_at.clone(),
                            or_dash(token.expires_at.as_ref()),
                            token.note.clone(),
                        ]
                    });
                    table(&["ID", "ROLE", "MADE", "ENDS", "NOTE"], &[], rows)
                })
            }
            Self::Create { role, note, expires_at } => {
                let role = match role {
                    Allows::Admin => Role::Admin,
                    Allows::Tenant => Role::Tenant,
                    Allows::ReadOnly => Role::ReadOnly,
                };
                let issued: IssuedToken =
                    client.post(&path(&["tokens"]), &NewToken { role, note, expires_at })?;
                out.value(&issued, |issued| issued.secret.clone())
            }
            Self::Revoke { token } => {
                client.remove(&path(&["tokens", &token]))?;
                super::gone("token", &token, out)
            }
        }
    }
}

const fn word(role: Role) -> &'static str {
    match role {
        Role::Admin => "admin",
        Role::Tenant => "tenant",
        Role::ReadOnly => "read-only",
    }
}
