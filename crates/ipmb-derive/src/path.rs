//! Under which path the crate `ipmb` is known where the macro is used.

use proc_macro_crate::{Error, FoundCrate, crate_name};
use proc_macro2::Span;
use syn::{Attribute, Ident, LitStr, Path, Result, parse_quote};

/// The path from `#[message_box(crate = "…")]`, else the name in the manifest of the crate being compiled.
pub(crate) fn ipmb(attributes: &[Attribute]) -> Result<Path> {
    let mut named = None;
    for attribute in attributes {
        if !attribute.path().is_ident("message_box") {
            continue;
        }
        attribute.parse_nested_meta(|meta| {
            if !meta.path.is_ident("crate") {
                return Err(meta.error("only `crate = \"path\"` is known here"));
            }
            named = Some(meta.value()?.parse::<LitStr>()?.parse()?);
            Ok(())
        })?;
    }
    if let Some(path) = named {
        return Ok(path);
    }
    match crate_name("ipmb") {
        Ok(FoundCrate::Name(name)) => {
            let name = Ident::new(&name, Span::call_site());
            Ok(parse_quote!(::#name))
        }
        Err(Error::CrateNotFound { .. }) => Err(syn::Error::new(
            Span::call_site(),
            "the crate `ipmb` is not among the dependencies; name a re-export with \
             `#[message_box(crate = \"path::to::ipmb\")]`",
        )),
        // In ipmb's own tests and examples (and, by `extern crate self`, in ipmb itself), or built without Cargo.
        Ok(FoundCrate::Itself) | Err(_) => Ok(parse_quote!(::ipmb)),
    }
}
