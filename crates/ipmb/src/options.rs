//! How an endpoint joins: names, secrets, limits and who is let in. Plain data, verified once by `join`.

use crate::{Error, JoinError, Label};
use std::{
    ffi::OsStr,
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const GIB: usize = 1 << 30;

/// How many bytes an identifier may have.
const MAX_IDENTIFIER: usize = 4096;
/// How many characters of a bad identifier an error shows.
const SHOWN: usize = 64;
/// How many bytes a rendezvous path may have: what fits a socket address on every system (the smallest takes 104,
/// with the NUL), less some for a suffix. The same everywhere, so that a path that works somewhere works anywhere.
const MAX_PATH: usize = 100;
/// How many bytes an application group may have: a name of shared memory has 31 on macOS, and most of the rest is random.
const MAX_APP_GROUP: usize = 22;
const LINK_CAPACITY: std::ops::RangeInclusive<usize> = 64 * KIB..=64 * MIB;
/// Long waits are what sleeping is for; and a sum with the clock cannot overflow.
const MAX_SPIN: Duration = Duration::from_secs(1);
/// The id that means "none" to the kernel.
const NO_ID: u32 = u32::MAX;

/// Parameters of [`join`](crate::join): the bus, the endpoint's label, a token, and settings with sound defaults.
///
/// Nothing is verified until `join`, which returns
/// [`JoinError::InvalidIdentifier`] or [`JoinError::InvalidOption`] with the name of what is wrong.
///
/// # Examples
///
/// ```
/// use ipmb::{Access, Options, label};
/// use std::time::Duration;
///
/// let options = Options::new("com.solar", label!("earth"), "")
///     .link_capacity(4 << 20)
///     .spin(Duration::ZERO)
///     .access(Access::owner().allow_gid(100));
/// assert!(options.controller_affinity);
/// ```
#[derive(Clone)]
pub struct Options {
    /// Names the bus together with its [owner](Self::owner). 1 to 4,096 bytes without NUL; every byte counts. Take a domain
    /// name of yours reversed, and the major number of what your programs say to each other: `com.example.app.1`.
    pub identifier: String,
    /// What selectors are matched against. At most 64 parts of at most 256 bytes.
    pub label: Label,
    /// A secret that all endpoints of the bus share; any string, and empty for none. It is proved, never sent; but
    /// whoever may connect can try guesses against what was exchanged, so take 128 random bits where it matters.
    pub token: String,
    /// Whether this endpoint may host the controller; default true. Set it to false in a process that is debugged or
    /// suspended often: while the controller's process is stopped nobody can join, and endpoints that have not talked yet
    /// cannot begin to. With only such endpoints, there
    /// is no bus: they wait for one that may.
    pub controller_affinity: bool,
    pub(crate) max_payload: usize,
    pub(crate) max_region: u64,
    pub(crate) link_capacity: usize,
    pub(crate) self_queue: usize,
    pub(crate) spin: Duration,
    pub(crate) idle_link: Duration,
    pub(crate) access: Access,
    pub(crate) owner: Option<u32>,
    pub(crate) path: Option<PathBuf>,
    pub(crate) app_group: Option<String>,
}

impl Options {
    /// Options with the default of every other setting.
    #[must_use]
    pub fn new(identifier: impl Into<String>, label: Label, token: impl Into<String>) -> Self {
        Self {
            identifier: identifier.into(),
            label,
            token: token.into(),
            controller_affinity: true,
            max_payload: GIB,
            max_region: 64 << 30,
            link_capacity: MIB,
            self_queue: 64 * MIB,
            spin: Duration::from_micros(150),
            idle_link: Duration::from_secs(20),
            access: Access::owner(),
            owner: None,
            path: None,
            app_group: None,
        }
    }

    /// The largest encoded payload, in bytes, that this endpoint sends or receives; default 1 GiB. A larger one is
    /// refused by `send` with [`SendError::TooLarge`](crate::SendError::TooLarge). One that comes from an endpoint with a
    /// higher limit is skipped: `recv` says so ([`RecvError::Decode`](crate::RecvError::Decode)), and its sender does not learn of it.
    #[must_use]
    pub fn max_payload(mut self, bytes: usize) -> Self {
        // No larger one fits into any memory, and sums of sizes up to here do not overflow.
        self.max_payload = bytes.min(isize::MAX as usize);
        self
    }

    /// The largest memory region, in bytes, that this endpoint accepts; default 64 GiB. `recv` refuses a message
    /// with a larger one ([`Error::RegionTooLarge`]).
    ///
    /// Receiving a region takes no memory, but mapping it takes address space: at the default, a message with all
    /// 253 regions that it can carry still fits the 128 TiB of a 64-bit process with plenty to spare.
    #[must_use]
    pub fn max_region(mut self, bytes: u64) -> Self {
        self.max_region = bytes;
        self
    }

    /// Bytes of ring for each link from this endpoint; a power of two from 64 KiB to 64 MiB, default 1 MiB. A sender
    /// waits while the ring is full; a payload that is larger than the ring still gets through.
    #[must_use]
    pub fn link_capacity(mut self, bytes: usize) -> Self {
        self.link_capacity = bytes;
        self
    }

    /// Bytes that the endpoint's link to itself may hold, since that link never makes a sender wait; default 64 MiB.
    /// Over it, sending to oneself fails with [`SendError::SelfQueueFull`](crate::SendError::SelfQueueFull).
    #[must_use]
    pub fn self_queue(mut self, bytes: usize) -> Self {
        self.self_queue = bytes;
        self
    }

    /// For how long at most a waiting call watches shared memory before it sleeps in the kernel; default 150 µs, at
    /// most 1 s, zero for never. Longer gives shorter delays and takes more CPU time. On one processor it sleeps at once.
    ///
    /// Beside a large message, which the other side may be copying, it watches longer: by a nanosecond per byte, 850 µs at most. If
    /// that is longer than `at_most`, a `send` that waits for space watches longer by four times as much. While one thread
    /// watches for messages, `recv`, `try_recv` and `stats` of the same endpoint wait in others.
    #[must_use]
    pub fn spin(mut self, at_most: Duration) -> Self {
        self.spin = at_most;
        self
    }

    /// A link from this endpoint over which nothing went for this long, or up to twice as long, is ended, and its memory and
    /// descriptors are given back at both ends; default 20 s, at least 10 ms, [`Duration::MAX`] for never. The next message
    /// makes a new link, for which it needs the controller. Messages are neither lost nor reordered by it.
    #[must_use]
    pub fn idle_link(mut self, after: Duration) -> Self {
        self.idle_link = after.max(Duration::from_millis(10));
        self
    }

    /// Who may join when this endpoint hosts the controller; default [`Access::owner()`]. All endpoints of a bus that
    /// may host it should say the same. Only endpoints of the owner and root host it, whoever may join.
    ///
    /// On Windows `join` fails with any other than `owner()` ([`JoinError::Io`] of kind `Unsupported`).
    #[must_use]
    pub fn access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }

    /// The user id of the bus's owner, which is part of its name; default this process's *effective* user id, so that the same
    /// program is on another bus under sudo. Name it to join another user's bus, whose [`Access`] must allow it.
    ///
    /// User ids are those of Unix. On Windows `join` fails with another user's ([`JoinError::Io`] of kind `Unsupported`).
    #[must_use]
    pub fn owner(mut self, uid: u32) -> Self {
        self.owner = Some(uid);
        self
    }

    /// Meets the other endpoints at a path in the file system, instead of a name that is abstract and shared by all
    /// that see the same network namespace. For containers and sandboxes that share a directory, and where others
    /// might squat names: anybody can take an abstract name first, but not a path in a directory of your own.
    ///
    /// An absolute path of at most 100 bytes without NUL, in an existing directory, where nothing else than a socket
    /// lies. The socket and a lock file beside it may remain after all endpoints were killed; the next `join` takes them
    /// over.
    ///
    /// On Windows `join` fails with any ([`JoinError::Io`] of kind `Unsupported`).
    #[must_use]
    pub fn path(mut self, path: impl Into<PathBuf>) -> Self {
        self.path = Some(path.into());
        self
    }

    /// The application group of a sandboxed program on macOS, e.g. `ABCDE12345.solar`. Names of shared memory and of Mach
    /// services in a macOS sandbox must begin with the group. Set it in the process's first `join`, before any
    /// [`MemoryRegion`](crate::MemoryRegion); it then holds for the whole process. All who exchange Mach ports name the same group, or
    /// none. Name a [`path`](Self::path) in the group's container, too. Other systems ignore it.
    ///
    /// 1 to 22 bytes of ASCII without `/` and NUL.
    #[must_use]
    pub fn app_group(mut self, group: impl Into<String>) -> Self {
        self.app_group = Some(group.into());
        self
    }

    /// Whether every option is within its limits.
    pub(crate) fn check(&self) -> Result<(), JoinError> {
        if crate::fault::on(3) {
            return Ok(());
        }
        self.check_identifier()?;
        match self.label.check() {
            Ok(()) => {}
            Err(Error::Limit(reason)) => return invalid("label", reason),
            Err(_) => return invalid("label", "it is over a limit"),
        }
        if !LINK_CAPACITY.contains(&self.link_capacity) || !self.link_capacity.is_power_of_two() {
            return invalid(
                "link_capacity",
                "it must be a power of two from 64 KiB to 64 MiB",
            );
        }
        if self.spin > MAX_SPIN {
            return invalid("spin", "it must be at most one second");
        }
        if self.owner == Some(NO_ID) {
            return invalid("owner", "4294967295 is no user id");
        }
        if self.access.uids.contains(&NO_ID) || self.access.gids.contains(&NO_ID) {
            return invalid("access", "4294967295 is no user or group id");
        }
        if let Some(group) = &self.app_group {
            check_app_group(group)?;
        }
        self.path.as_deref().map_or(Ok(()), check_path)
    }

    fn check_identifier(&self) -> Result<(), JoinError> {
        let reason = if self.identifier.is_empty() {
            "it is empty"
        } else if self.identifier.len() > MAX_IDENTIFIER {
            "it is longer than 4096 bytes"
        } else if self.identifier.contains('\0') {
            "it contains a NUL"
        } else {
            return Ok(());
        };
        Err(JoinError::InvalidIdentifier {
            identifier: self.identifier.chars().take(SHOWN).collect(),
            reason,
        })
    }
}

fn check_app_group(group: &str) -> Result<(), JoinError> {
    if group.is_empty() || group.len() > MAX_APP_GROUP {
        invalid("app_group", "it must have 1 to 22 bytes")
    } else if !group.is_ascii() || group.contains(['/', '\0']) {
        invalid("app_group", "it must be ASCII without `/` and NUL")
    } else {
        Ok(())
    }
}

fn check_path(path: &Path) -> Result<(), JoinError> {
    let bytes = OsStr::as_encoded_bytes(path.as_os_str());
    if bytes.is_empty() {
        invalid("path", "it is empty")
    } else if bytes.contains(&0) {
        invalid("path", "it contains a NUL")
    } else if bytes.len() > MAX_PATH {
        invalid(
            "path",
            "it is longer than 100 bytes, too long for a socket address",
        )
    } else if !path.is_absolute() {
        invalid(
            "path",
            "it is relative, so processes with other working directories would not meet; make it absolute",
        )
    } else {
        Ok(())
    }
}

fn invalid(option: &'static str, reason: &'static str) -> Result<(), JoinError> {
    Err(JoinError::InvalidOption { option, reason })
}

/// All but the token, which does not belong into logs.
impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("identifier", &self.identifier)
            .field("label", &self.label)
            .field("token", &format_args!("(hidden)"))
            .field("controller_affinity", &self.controller_affinity)
            .field("max_payload", &self.max_payload)
            .field("max_region", &self.max_region)
            .field("link_capacity", &self.link_capacity)
            .field("self_queue", &self.self_queue)
            .field("spin", &self.spin)
            .field("access", &self.access)
            .field("owner", &self.owner)
            .field("path", &self.path)
            .field("app_group", &self.app_group)
            .finish()
    }
}

/// Who may join a bus. The bus's owner and root always may.
///
/// The kernel tells who a process is (its effective user and its groups), so nobody can claim it. A user that has no
/// id in this process's user namespace is nobody's equal and is let in by [`anyone`](Access::anyone) only. The token
/// is asked for all the same.
///
/// User and group ids are those of Unix. On Windows `join` fails with any other than [`owner()`](Access::owner)
/// ([`JoinError::Io`] of kind `Unsupported`).
///
/// ```
/// use ipmb::Access;
///
/// let family = Access::owner().allow_uid(1001).allow_gid(100);
/// assert_ne!(family, Access::default());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Access {
    anyone: bool,
    uids: Vec<u32>,
    gids: Vec<u32>,
}

impl Access {
    /// The bus's owner and root, and nobody else.
    pub fn owner() -> Self {
        Self {
            anyone: false,
            uids: Vec::new(),
            gids: Vec::new(),
        }
    }

    /// Everybody on the machine who can reach the bus's name.
    pub fn anyone() -> Self {
        Self {
            anyone: true,
            ..Self::owner()
        }
    }

    /// Lets this user in, too.
    pub fn allow_uid(mut self, uid: u32) -> Self {
        self.uids.push(uid);
        self
    }

    /// Lets the members of this group in, too.
    pub fn allow_gid(mut self, gid: u32) -> Self {
        self.gids.push(gid);
        self
    }

    /// Whether the groups of a process matter.
    pub(crate) fn names_groups(&self) -> bool {
        !self.gids.is_empty()
    }

    /// Whether a process may join: its user, `None` if that has no id here, and its groups that have one.
    pub(crate) fn admits(
        &self,
        owner: u32,
        uid: Option<u32>,
        gids: impl IntoIterator<Item = u32>,
    ) -> bool {
        let user = uid.filter(|uid| *uid != NO_ID);
        self.anyone
            || user.is_some_and(|uid| uid == owner || uid == 0 || self.uids.contains(&uid))
            || gids
                .into_iter()
                .any(|gid| gid != NO_ID && self.gids.contains(&gid))
    }
}

impl Default for Access {
    fn default() -> Self {
        Self::owner()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::label;
    use proptest::prelude::*;

    fn options() -> Options {
        Options::new("com.solar", label!("earth"), "")
    }

    /// The option that `check` names, with the whole text.
    fn culprit(options: &Options) -> (&'static str, String) {
        match options.check() {
            Err(error @ JoinError::InvalidOption { option, .. }) => (option, error.to_string()),
            other => panic!("{other:?}"),
        }
    }

    /// Where absolute paths begin.
    fn root() -> PathBuf {
        let here = std::env::current_dir().unwrap();
        here.ancestors().last().unwrap().to_owned()
    }

    #[test]
    fn defaults_pass() {
        options().check().unwrap();
        assert!(options().controller_affinity);
        let path = root().join("run/bus");
        let open = options().access(Access::anyone()).owner(0).path(path);
        open.check().unwrap();
    }

    #[test]
    fn a_bad_identifier_is_named_with_its_reason() {
        let long = "é".repeat(3000);
        for (identifier, reason) in [
            ("", "empty"),
            (&*long, "longer than 4096"),
            ("com\0solar", "NUL"),
        ] {
            let error = Options::new(identifier, label!(), "").check().unwrap_err();
            let text = error.to_string();
            assert!(text.contains(reason), "{text}");
            let JoinError::InvalidIdentifier {
                identifier: shown, ..
            } = error
            else {
                panic!("{text}");
            };
            assert!(identifier.starts_with(&shown) && shown.chars().count() <= 64);
        }
        Options::new("x".repeat(4096), label!(), "")
            .check()
            .unwrap();
        assert!(
            Options::new("x".repeat(4097), label!(), "")
                .check()
                .is_err()
        );
    }

    #[test]
    fn a_label_over_its_limit_is_refused_at_join() {
        let mut options = options();
        options.label = Label::from((0..65).map(|i| i.to_string()));
        let (option, text) = culprit(&options);
        assert_eq!(option, "label");
        assert!(
            text.contains("`label`") && text.contains("64 parts"),
            "{text}"
        );
    }

    #[test]
    fn a_link_capacity_that_is_no_power_of_two_in_range_is_refused() {
        for bytes in [
            0,
            1,
            32 << 10,
            (64 << 10) + 1,
            3 << 20,
            128 << 20,
            usize::MAX,
        ] {
            assert_eq!(culprit(&options().link_capacity(bytes)).0, "link_capacity");
        }
        for bits in 16..=26 {
            options().link_capacity(1 << bits).check().unwrap();
        }
    }

    #[test]
    fn a_spin_that_could_overflow_the_clock_is_refused() {
        assert_eq!(culprit(&options().spin(Duration::MAX)).0, "spin");
        options().spin(Duration::ZERO).check().unwrap();
        options().spin(Duration::from_secs(1)).check().unwrap();
    }

    #[test]
    fn the_id_that_means_none_is_refused() {
        assert_eq!(culprit(&options().owner(u32::MAX)).0, "owner");
        for group in ["", "a/b", "a\0b", "ä", "ABCDE12345.twelve.more."] {
            assert_eq!(culprit(&options().app_group(group)).0, "app_group");
        }
        options()
            .app_group("ABCDE12345.twelve.more")
            .check()
            .unwrap();
        for access in [
            Access::owner().allow_uid(u32::MAX),
            Access::owner().allow_gid(u32::MAX),
        ] {
            assert_eq!(culprit(&options().access(access)).0, "access");
        }
    }

    #[test]
    fn a_path_that_no_socket_address_holds_is_refused() {
        let root = root().to_string_lossy().into_owned();
        let long = format!("{root}{}", "x".repeat(100));
        for (path, reason) in [
            ("", "empty"),
            (&*format!("{root}a\0b"), "NUL"),
            (&*long, "too long for a socket address"),
            ("run/bus", "relative"),
        ] {
            let (option, text) = culprit(&options().path(path));
            assert_eq!(option, "path");
            assert!(text.contains(reason), "{text}");
        }
        options().path(&long[..100]).check().unwrap();
    }

    #[test]
    fn the_token_is_not_in_the_debug_text() {
        let text = format!("{:?}", Options::new("com.solar", label!(), "s3cret"));
        assert!(
            !text.contains("s3cret") && text.contains("com.solar"),
            "{text}"
        );
    }

    #[test]
    fn by_default_only_owner_and_root_are_let_in() {
        let access = Access::default();
        assert!(access.admits(1000, Some(1000), []) && access.admits(1000, Some(0), []));
        assert!(!access.admits(1000, Some(1001), [1000, 0]));
        assert!(!access.admits(1000, None, [1000, 0]));
    }

    #[test]
    fn a_user_without_an_id_is_never_the_same_user() {
        assert!(
            !Access::owner()
                .allow_uid(u32::MAX)
                .admits(u32::MAX, Some(u32::MAX), [u32::MAX])
        );
        assert!(
            !Access::owner()
                .allow_gid(u32::MAX)
                .admits(1, None, [u32::MAX])
        );
        assert!(Access::anyone().admits(1000, None, []));
    }

    proptest! {
        #[test]
        fn access_admits_exactly_those_who_are_named(
            uids in prop::collection::vec(1u32..6, 0..3),
            gids in prop::collection::vec(1u32..6, 0..3),
            uid in 1u32..6,
            groups in prop::collection::vec(1u32..6, 0..3),
        ) {
            let access = uids.iter().fold(Access::owner(), |access, uid| access.allow_uid(*uid));
            let access = gids.iter().fold(access, |access, gid| access.allow_gid(*gid));
            let expected = uid == 5 || uids.contains(&uid) || groups.iter().any(|group| gids.contains(group));
            prop_assert_eq!(access.admits(5, Some(uid), groups), expected);
        }

        #[test]
        fn no_identifier_makes_check_panic(identifier in ".{0,200}|(\\PC){1300,1500}") {
            let result = Options::new(identifier.clone(), label!(), "").check();
            let valid = (1..=4096).contains(&identifier.len()) && !identifier.contains('\0');
            prop_assert_eq!(result.is_ok(), valid);
        }
    }
}
