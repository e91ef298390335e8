//! `#[derive(MessageBox)]`.

use crate::path;
use proc_macro2::TokenStream;
use quote::quote;
use syn::{Data, DeriveInput, Error, Fields, Ident, Result, Type, Variant, parse_quote};

const SHAPE: &str =
    "a message box is an enum whose variants hold one type each, as in `Text(String)`";

pub(crate) fn expand(input: &DeriveInput) -> Result<TokenStream> {
    let ipmb = path::ipmb(&input.attrs)?;
    let Data::Enum(data) = &input.data else {
        let what = match input.data {
            Data::Struct(_) => {
                "this is a struct; alone, a type of yours needs `#[derive(ipmb::TypeUuid)]` and serde"
            }
            _ => "this is a union",
        };
        return Err(Error::new_spanned(&input.ident, format!("{SHAPE}; {what}")));
    };

    let mut errors: Option<Error> = None;
    let mut variants = Vec::new();
    for variant in &data.variants {
        match held(variant) {
            Ok(ty) => variants.push((&variant.ident, ty)),
            Err(error) => match &mut errors {
                Some(errors) => errors.combine(error),
                None => errors = Some(error),
            },
        }
    }
    if let Some(errors) = errors {
        return Err(errors);
    }
    let (names, types): (Vec<&Ident>, Vec<&Type>) = variants.into_iter().unzip();

    let mut generics = input.generics.clone();
    if generics.type_params().next().is_some() {
        let parameters: Vec<Ident> = generics.type_params().map(|p| p.ident.clone()).collect();
        let bounds = generics.make_where_clause();
        for ty in &types {
            bounds.predicates.push(parse_quote!(#ty: #ipmb::MessageBox));
        }
        for parameter in parameters {
            bounds
                .predicates
                .push(parse_quote!(#parameter: ::core::marker::Send + 'static));
        }
    }
    let (generics, arguments, bounds) = generics.split_for_impl();
    let name = &input.ident;

    // Without variants there is no value to match on, and `match self {}` does not see that.
    let this = if names.is_empty() {
        quote!(*self)
    } else {
        quote!(self)
    };
    Ok(quote! {
        #[automatically_derived]
        #[allow(unused_variables)]
        impl #generics #ipmb::MessageBox for #name #arguments #bounds {
            #[inline]
            fn uuid(&self) -> [::core::primitive::u8; 16] {
                match #this {
                    #(Self::#names(value) => <#types as #ipmb::MessageBox>::uuid(value),)*
                }
            }

            #[inline]
            fn accepts(uuid: &[::core::primitive::u8; 16]) -> ::core::primitive::bool {
                false #(|| <#types as #ipmb::MessageBox>::accepts(uuid))*
            }

            #[inline]
            fn encode<'ipmb>(
                &'ipmb self,
                encoder: &mut #ipmb::Encoder<'ipmb>,
            ) -> ::core::result::Result<(), #ipmb::Error> {
                match #this {
                    #(Self::#names(value) => <#types as #ipmb::MessageBox>::encode(value, encoder),)*
                }
            }

            #[inline]
            fn decode(
                uuid: &[::core::primitive::u8; 16],
                payload: &mut #ipmb::Payload<'_>,
            ) -> ::core::result::Result<Self, #ipmb::Error> {
                #(if <#types as #ipmb::MessageBox>::accepts(uuid) {
                    return <#types as #ipmb::MessageBox>::decode(uuid, payload).map(Self::#names);
                })*
                ::core::result::Result::Err(#ipmb::Error::TypeUuidNotFound)
            }
        }
    })
}

/// The one type that a variant holds.
fn held(variant: &Variant) -> Result<&Type> {
    let what = match &variant.fields {
        Fields::Unnamed(fields) => {
            let mut types = fields.unnamed.iter();
            match (types.next(), types.next()) {
                (Some(field), None) => return Ok(&field.ty),
                (None, _) => "this variant holds none".to_string(),
                (Some(_), Some(_)) => format!(
                    "this variant holds {}; make them the fields of one struct",
                    fields.unnamed.len()
                ),
            }
        }
        Fields::Named(_) => "this variant has named fields; move them to a struct".to_string(),
        Fields::Unit => {
            "this variant holds none; `Name(())` or a unit struct of your own would do".to_string()
        }
    };
    Err(Error::new_spanned(variant, format!("{SHAPE}; {what}")))
}

#[cfg(test)]
mod tests {
    use super::expand;
    use syn::{DeriveInput, parse_quote};

    fn error(input: DeriveInput) -> String {
        expand(&input).unwrap_err().to_string()
    }

    #[test]
    fn shapes_that_cannot_be_derived_are_told_why() {
        assert!(
            error(parse_quote! { #[message_box(crate = "ipmb")] struct A; })
                .contains("this is a struct")
        );
        assert!(
            error(parse_quote! { #[message_box(crate = "ipmb")] enum A { B } })
                .contains("holds none")
        );
        assert!(
            error(parse_quote! { #[message_box(crate = "ipmb")] enum A { B { c: u8 } } })
                .contains("named fields")
        );
        assert!(
            error(parse_quote! { #[message_box(crate = "ipmb")] enum A { B(u8, u8) } })
                .contains("holds 2")
        );
        assert!(error(parse_quote! { #[message_box(krate = "ipmb")] enum A {} }).contains("only"));
    }
}
