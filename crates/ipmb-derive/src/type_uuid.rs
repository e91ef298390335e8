//! `#[derive(TypeUuid)]`.

use crate::path;
use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::{DeriveInput, Error, Expr, ExprLit, Lit, LitStr, Meta, Result};

const FORM: &str = "#[uuid = \"xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx\"]";

pub(crate) fn expand(input: &DeriveInput) -> Result<TokenStream> {
    let ipmb = path::ipmb(&input.attrs)?;
    let uuid = find(input)?;
    let bytes = parse(&uuid.value()).ok_or_else(|| {
        Error::new(
            uuid.span(),
            format!("not a UUID; it takes the form `{FORM}` with hexadecimal digits"),
        )
    })?;
    let name = &input.ident;
    let (generics, arguments, bounds) = input.generics.split_for_impl();
    Ok(quote! {
        #[automatically_derived]
        impl #generics #ipmb::TypeUuid for #name #arguments #bounds {
            const UUID: [::core::primitive::u8; 16] = [#(#bytes),*];
        }
    })
}

/// The string of the one attribute `uuid`.
fn find(input: &DeriveInput) -> Result<LitStr> {
    let mut found = None;
    for attribute in &input.attrs {
        if !attribute.path().is_ident("uuid") {
            continue;
        }
        let text = match &attribute.meta {
            Meta::NameValue(meta) => match &meta.value {
                Expr::Lit(ExprLit {
                    lit: Lit::Str(text),
                    ..
                }) => Some(text.clone()),
                _ => None,
            },
            _ => None,
        };
        let Some(text) = text else {
            return Err(Error::new_spanned(
                attribute,
                format!("it takes the form `{FORM}`"),
            ));
        };
        if found.replace(text).is_some() {
            return Err(Error::new_spanned(attribute, "a type has one UUID"));
        }
    }
    found.ok_or_else(|| {
        Error::new(
            Span::call_site(),
            format!("the type needs a UUID: add `{FORM}` (the command `uuidgen` makes one)"),
        )
    })
}

/// The forms that type-uuid takes: with hyphens or without, in braces, or as a URN.
fn parse(text: &str) -> Option<[u8; 16]> {
    let text = text.strip_prefix("urn:uuid:").unwrap_or(text);
    let text = text
        .strip_prefix('{')
        .and_then(|text| text.strip_suffix('}'))
        .unwrap_or(text);
    let hyphens = [8, 13, 18, 23];
    if text.contains('-')
        && (text.len() != 36 || !hyphens.iter().all(|&i| text.as_bytes()[i] == b'-'))
    {
        return None;
    }
    let digits: Vec<u8> = text
        .bytes()
        .enumerate()
        .filter(|(i, byte)| !(*byte == b'-' && hyphens.contains(i)))
        .map(|(_, byte)| char::from(byte).to_digit(16).map(|digit| digit as u8))
        .collect::<Option<_>>()?;
    let bytes: Vec<u8> = digits
        .chunks(2)
        .map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit))
        .collect();
    if digits.len() == 32 {
        bytes.try_into().ok()
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn the_bytes_are_in_the_order_in_which_the_uuid_is_written() {
        let bytes = 0x7b07473e_9659_4d47_a502_8245d71c0078_u128.to_be_bytes();
        for text in [
            "7b07473e-9659-4d47-a502-8245d71c0078",
            "7B07473E-9659-4D47-A502-8245D71C0078",
            "7b07473e96594d47a5028245d71c0078",
            "{7b07473e-9659-4d47-a502-8245d71c0078}",
            "urn:uuid:7b07473e-9659-4d47-a502-8245d71c0078",
        ] {
            assert_eq!(parse(text), Some(bytes), "{text}");
        }
    }

    #[test]
    fn malformed_uuids_are_refused() {
        for text in [
            "",
            "7b07473e",
            "7b07473e-9659-4d47-a502-8245d71c007",
            "7b07473e-9659-4d47-a502-8245d71c00789",
            "7b07473e-9659-4d47-a502-8245d71c007g",
            "7b07473e9659-4d47-a502-8245d71c0078-",
            "7b07473e-9659-4d47-a502-8245d71c-078",
            "é07473e-9659-4d47-a502-8245d71c0078",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
