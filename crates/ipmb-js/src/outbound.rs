//! The payload on its way out: a `BytesMessage` that is copied only if it has to wait.

use ipmb::{BytesMessage, Encoder, Error, MessageBox, Payload, TypeUuid};

/// Format and data, as a [`BytesMessage`] has them on the wire.
pub(crate) struct Outbound {
    format: u16,
    data: Data,
}

enum Data {
    /// Bytes of a JavaScript buffer, during the call that was given it.
    Lent(*const u8, usize),
    Owned(Vec<u8>),
}

// SAFETY: a lent pointer is used only on the thread and during the call that it was lent in; see `Outbound::lent`.
unsafe impl Send for Outbound {}

impl Outbound {
    /// # Safety
    /// Before `data` is invalid, the value must be dropped or made to own its data with [`Self::own`]. Until then it must
    /// not leave the thread.
    pub(crate) unsafe fn lent(format: u16, data: &[u8]) -> Self {
        Self {
            format,
            data: Data::Lent(data.as_ptr(), data.len()),
        }
    }

    /// Copies lent data.
    pub(crate) fn own(&mut self) {
        if let Data::Lent(..) = self.data {
            self.data = Data::Owned(self.bytes().to_vec());
        }
    }

    fn bytes(&self) -> &[u8] {
        match &self.data {
            // SAFETY: still valid, as the caller of `lent` promised. A worker that shares the memory may write to it
            // meanwhile, against the rules; the bytes are only ever copied, and any value will do.
            Data::Lent(start, len) if *len > 0 => unsafe {
                std::slice::from_raw_parts(*start, *len)
            },
            Data::Lent(..) => &[],
            Data::Owned(bytes) => bytes,
        }
    }
}

impl MessageBox for Outbound {
    fn uuid(&self) -> [u8; 16] {
        BytesMessage::UUID
    }

    fn accepts(_: &[u8; 16]) -> bool {
        false
    }

    fn encode<'a>(&'a self, encoder: &mut Encoder<'a>) -> Result<(), Error> {
        encoder.put(&self.format.to_le_bytes())?;
        encoder.put_tail(self.bytes())
    }

    fn decode(_: &[u8; 16], _: &mut Payload<'_>) -> Result<Self, Error> {
        Err(Error::TypeUuidNotFound)
    }
}
