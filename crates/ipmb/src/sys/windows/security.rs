//! Users, and who may do what: SIDs, security descriptors and integrity levels.

use super::handle;
use sha2::{Digest, Sha256};
use std::{
    io,
    os::windows::io::{AsRawHandle, BorrowedHandle, OwnedHandle},
    sync::OnceLock,
};
use windows_sys::Win32::{
    Foundation::{HANDLE, LocalFree},
    Security::{
        Authorization::{
            ConvertSidToStringSidW, ConvertStringSecurityDescriptorToSecurityDescriptorW,
            GetSecurityInfo, SDDL_REVISION_1, SE_KERNEL_OBJECT,
        },
        GetAce, GetSidSubAuthority, GetSidSubAuthorityCount, GetTokenInformation,
        LABEL_SECURITY_INFORMATION, OWNER_SECURITY_INFORMATION, PSID, SECURITY_ATTRIBUTES,
        SYSTEM_MANDATORY_LABEL_ACE, TOKEN_INFORMATION_CLASS, TOKEN_MANDATORY_LABEL, TOKEN_QUERY,
        TOKEN_USER, TokenIntegrityLevel, TokenIsAppContainer, TokenOwner, TokenUser,
    },
    System::Threading::{GetCurrentProcess, OpenProcessToken},
};

/// The system itself, and its administrators: who can do everything in any case.
const SYSTEM: &str = "S-1-5-18";
const ADMINISTRATORS: &str = "S-1-5-32-544";

/// What a new object is protected with. Lives for ever.
pub(super) struct Attributes(pub(super) SECURITY_ATTRIBUTES);

// SAFETY: points to a descriptor that is never changed and never freed.
unsafe impl Send for Attributes {}
// SAFETY: as above.
unsafe impl Sync for Attributes {}

fn attributes(text: &str) -> io::Result<Attributes> {
    let text = wide(text);
    let mut descriptor = std::ptr::null_mut();
    // SAFETY: the text ends with a zero, and the place for the result is valid.
    handle::check(unsafe {
        ConvertStringSecurityDescriptorToSecurityDescriptorW(
            text.as_ptr(),
            SDDL_REVISION_1,
            &raw mut descriptor,
            std::ptr::null_mut(),
        )
    })?;
    Ok(Attributes(SECURITY_ATTRIBUTES {
        nLength: size_of::<SECURITY_ATTRIBUTES>() as u32,
        lpSecurityDescriptor: descriptor,
        bInheritHandle: 0,
    }))
}

fn once(
    place: &'static OnceLock<Attributes>,
    text: impl FnOnce() -> io::Result<String>,
) -> io::Result<&'static Attributes> {
    if let Some(known) = place.get() {
        return Ok(known);
    }
    let made = attributes(&text()?)?;
    Ok(place.get_or_init(|| made))
}

/// For objects that are reached by the handles that are handed over and in no other way: nobody may open them, nor get a
/// handle out of one that may do less. The owner's right to change that (`OWNER RIGHTS`) is taken away, too.
pub(super) fn sealed_object() -> io::Result<&'static Attributes> {
    static PLACE: OnceLock<Attributes> = OnceLock::new();
    once(&PLACE, || Ok("D:P(A;;RC;;;S-1-3-4)".to_owned()))
}

/// For what is opened by its name: the user and the system may.
pub(super) fn owner_only() -> io::Result<&'static Attributes> {
    static PLACE: OnceLock<Attributes> = OnceLock::new();
    once(&PLACE, || {
        let sid = own_sid()?;
        Ok(format!("D:P(A;;GA;;;{sid})(A;;GA;;;SY)"))
    })
}

/// A text as the system takes it.
pub(super) fn wide(text: &str) -> Vec<u16> {
    text.encode_utf16().chain([0]).collect()
}

/// What a token says. Its pointers lead into it, so it must not be moved.
type Said = [u64; 32];

/// Reads what a token says into space for it.
fn ask(token: HANDLE, class: TOKEN_INFORMATION_CLASS, space: &mut Said) -> io::Result<()> {
    let mut len = 0;
    // SAFETY: the handle is open, and the space as large as is said. A SID has 68 bytes at most.
    handle::check(unsafe {
        GetTokenInformation(
            token,
            class,
            space.as_mut_ptr().cast(),
            size_of_val(space) as u32,
            &raw mut len,
        )
    })
}

/// # Safety
/// It points to a SID that lives during the call.
unsafe fn text_of(sid: PSID) -> io::Result<String> {
    let mut text = std::ptr::null_mut();
    // SAFETY: as the caller promises, and the place for the result is valid.
    handle::check(unsafe { ConvertSidToStringSidW(sid, &raw mut text) })?;
    // SAFETY: the text ends with a zero; it is freed after it was copied.
    unsafe {
        let len = (0..).take_while(|i| *text.add(*i) != 0).count();
        let copy = String::from_utf16_lossy(std::slice::from_raw_parts(text, len));
        LocalFree(text.cast());
        Ok(copy)
    }
}

/// Who a process is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) sid: String,
    /// What it owns that it makes.
    owner: String,
    integrity: u32,
    /// In an AppContainer.
    contained: bool,
}

impl Identity {
    /// Who the process is. Needs a handle with `PROCESS_QUERY_LIMITED_INFORMATION`.
    pub(super) fn of(process: HANDLE) -> io::Result<Self> {
        let mut token: HANDLE = std::ptr::null_mut();
        // SAFETY: the handle is open, and the place for the result is valid.
        handle::check(unsafe { OpenProcessToken(process, TOKEN_QUERY, &raw mut token) })?;
        // SAFETY: opened just now.
        let token: OwnedHandle = unsafe { handle::made(token) }?;
        let token = token.as_raw_handle();
        let mut said: Said = [0; 32];
        // SAFETY: each class fills its structure, whose pointers lead into the space, which stays where it is.
        unsafe {
            ask(token, TokenUser, &mut said)?;
            let sid = text_of(said.as_ptr().cast::<TOKEN_USER>().read().User.Sid)?;
            ask(token, TokenOwner, &mut said)?;
            let owner = text_of(said.as_ptr().cast::<PSID>().read())?;
            ask(token, TokenIntegrityLevel, &mut said)?;
            let label = said.as_ptr().cast::<TOKEN_MANDATORY_LABEL>().read();
            let integrity = last_part(label.Label.Sid);
            said = [0; 32];
            let contained = ask(token, TokenIsAppContainer, &mut said).is_ok() && said[0] != 0;
            Ok(Self {
                sid,
                owner,
                integrity,
                contained,
            })
        }
    }

    /// Whether it can do what it likes with this process in any case, by the rules of the system: then it need not be
    /// mistrusted about numbers of handles.
    pub(super) fn has_power_over(&self, other: &Self) -> bool {
        let same = self.sid == other.sid || self.sid == SYSTEM;
        same && !self.contained && self.integrity >= other.integrity
    }

    /// The user as a number: 0 is the system. Others are known by a hash of their SID; what matters is checked by the SIDs
    /// themselves, so another user whose hash is ours by chance is told by another number.
    pub(super) fn uid(&self) -> u32 {
        uid_of(&self.sid, own().map_or("", |own| &own.sid))
    }
}

fn uid_of(sid: &str, ours: &str) -> u32 {
    let number = |sid: &str| {
        let hash = Sha256::digest(sid);
        let number = u32::from_le_bytes([hash[0], hash[1], hash[2], hash[3]]);
        number.clamp(1, u32::MAX - 2)
    };
    match number(sid) {
        _ if sid == SYSTEM => 0,
        same if sid != ours && same == number(ours) => same + 1,
        number => number,
    }
}

/// Who this process is. A process cannot change that.
pub(super) fn own() -> io::Result<&'static Identity> {
    static OWN: OnceLock<Identity> = OnceLock::new();
    if let Some(known) = OWN.get() {
        return Ok(known);
    }
    // SAFETY: a constant that stands for this process.
    let identity = Identity::of(unsafe { GetCurrentProcess() })?;
    Ok(OWN.get_or_init(|| identity))
}

pub(super) fn own_sid() -> io::Result<&'static str> {
    own().map(|own| &*own.sid)
}

/// Who owns an object, and its integrity level if it has one of its own.
fn owner_and_label(object: BorrowedHandle<'_>) -> io::Result<(String, Option<u32>)> {
    let (mut sid, mut list, mut descriptor) = (
        std::ptr::null_mut(),
        std::ptr::null_mut(),
        std::ptr::null_mut(),
    );
    // SAFETY: the handle is open, and the places for the results are valid.
    let error = unsafe {
        GetSecurityInfo(
            object.as_raw_handle(),
            SE_KERNEL_OBJECT,
            OWNER_SECURITY_INFORMATION | LABEL_SECURITY_INFORMATION,
            &raw mut sid,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            &raw mut list,
            &raw mut descriptor,
        )
    };
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error as i32));
    }
    // SAFETY: the owner and the list lie in the descriptor, which is freed after they were read. A list of labels has one
    // entry at most, which ends with a SID.
    unsafe {
        let owner = text_of(sid);
        let mut entry = std::ptr::null_mut();
        let mut label = None;
        if !list.is_null() && GetAce(list, 0, &raw mut entry) != 0 {
            let sid: PSID =
                (&raw mut (*entry.cast::<SYSTEM_MANDATORY_LABEL_ACE>()).SidStart).cast();
            label = Some(last_part(sid));
        }
        LocalFree(descriptor);
        Ok((owner?, label))
    }
}

/// The last part of a SID, which is the level in those of integrity levels.
///
/// # Safety
/// It points to a SID that lives during the call.
unsafe fn last_part(sid: PSID) -> u32 {
    // SAFETY: as the caller promises; the part is one of those that the SID has.
    unsafe {
        match (*GetSidSubAuthorityCount(sid)).checked_sub(1) {
            Some(last) => *GetSidSubAuthority(sid, last.into()),
            None => 0,
        }
    }
}

/// Whether a named object was made by this user, by an administrator or by the system.
pub(super) fn is_ours(object: BorrowedHandle<'_>) -> io::Result<bool> {
    let own = own()?;
    let (owner, _) = owner_and_label(object)?;
    Ok([&*own.sid, &*own.owner, SYSTEM, ADMINISTRATORS].contains(&&*owner))
}

/// Whether whoever made an object had the power over this process that it has itself, as far as the object shows it: what
/// it makes has the same owner, and processes of low integrity, such as those in an AppContainer, leave their level on it.
pub(super) fn is_of_an_equal(object: BorrowedHandle<'_>) -> io::Result<bool> {
    let own = own()?;
    let (owner, label) = owner_and_label(object)?;
    Ok(owner == own.owner && label.is_none_or(|label| label >= own.integrity))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_user_passes_for_us_or_for_the_system() {
        let ours = own_sid().unwrap();
        assert!(ours.starts_with("S-1-"));
        assert_eq!(uid_of(SYSTEM, ours), 0);
        let number = uid_of(ours, ours);
        assert!(number != 0 && number != u32::MAX && own().unwrap().uid() == number);
        for user in 0..200 {
            let sid = format!("S-1-5-21-1-2-3-{user}");
            assert_ne!(uid_of(&sid, ours), 0);
            assert_ne!(uid_of(&sid, ours), number);
        }
    }

    #[test]
    fn a_process_below_us_is_believed() {
        let us = own().unwrap().clone();
        assert!(us.has_power_over(&us));
        let lower = Identity {
            integrity: us.integrity - 1,
            ..us.clone()
        };
        assert!(!lower.has_power_over(&us) && us.has_power_over(&lower));
        let contained = Identity {
            contained: true,
            ..us.clone()
        };
        assert!(!contained.has_power_over(&us));
        let stranger = Identity {
            sid: "S-1-5-21-1-2-3-4".to_owned(),
            ..us.clone()
        };
        assert!(!stranger.has_power_over(&us));
        let system = Identity {
            sid: SYSTEM.to_owned(),
            ..us.clone()
        };
        assert!(system.has_power_over(&us));
    }
}
