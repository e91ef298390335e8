//! The public names and shapes that programs rely on. A change that breaks them does not compile here.

#![allow(clippy::expect_used, clippy::unwrap_used)]
#![allow(dead_code, clippy::too_many_arguments)]

mod common;

use ipmb::{
    Access, BytesMessage, EndpointReceiver, EndpointSender, Error, JoinError, Label, LabelOp,
    MemoryRegion, MemoryRegistry, Message, MessageBox, Object, Options, RecvError, Selector,
    SelectorMode, SendError, TrySendError, TypeUuid, Version, label,
};
use std::{error::Error as StdError, fmt, io, ops::RangeBounds, time::Duration};

fn is_error<T: StdError + Send + Sync + 'static>() {}
fn is_shared<T: Send + Sync>() {}
/// `AsFd`, or `AsHandle`.
fn is_handle(_: &impl common::Waitable) {}

/// Has none of the traits of a payload.
struct Bare;

type Joined<T, R> = Result<(EndpointSender<T>, EndpointReceiver<R>), JoinError>;

fn joining<T: MessageBox, R: MessageBox>() {
    let _: fn(Options, Option<Duration>) -> Joined<T, R> = ipmb::join::<T, R>;
    let mut options = Options::new("identifier".to_owned(), label!("a", "b"), "token");
    options.controller_affinity = false;
    let _: (&String, &Label, &String, &bool) = (
        &options.identifier,
        &options.label,
        &options.token,
        &options.controller_affinity,
    );
    let _: Options = options
        .max_payload(1)
        .max_region(1)
        .link_capacity(1 << 20)
        .self_queue(1)
        .spin(Duration::ZERO)
        .idle_link(Duration::MAX)
        .access(Access::anyone().allow_uid(1).allow_gid(1))
        .owner(0)
        .path("/run/bus");
}

fn sending<T: MessageBox>(sender: &EndpointSender<T>, message: [Message<T>; 3]) {
    is_shared::<EndpointSender<T>>();
    let sender: EndpointSender<T> = sender.clone();
    let [a, b, c] = message;
    let _: Result<(), SendError> = sender.send(a);
    let tried: Result<(), TrySendError<T>> = sender.try_send(b);
    let _: Result<(), TrySendError<T>> = sender.send_timeout(c, None::<Duration>);
    let _: Result<(), SendError> = sender.leave(Some(Duration::ZERO));
    let error = tried.unwrap_err();
    let _: &SendError = error.kind();
    if sender.stats().sent > 0 {
        let _: SendError = error.into();
    } else {
        let _: Message<T> = error.into_message();
    }
}

/// Whatever the payload is.
fn errors() {
    fn prints<T: fmt::Debug + fmt::Display + StdError>() {}
    prints::<TrySendError<Bare>>();
    let _: fn(TrySendError<Bare>) -> SendError = SendError::from;
    is_error::<Error>();
    is_error::<JoinError>();
    is_error::<SendError>();
    is_error::<RecvError>();
    let version: fn() -> Version = ipmb::version;
    let _ = [
        JoinError::Timeout,
        JoinError::VersionMismatch(version()),
        JoinError::TokenMismatch,
        JoinError::PermissionDenied,
    ];
    let _ = [
        SendError::Timeout,
        SendError::VersionMismatch(version()),
        SendError::TokenMismatch,
        SendError::PermissionDenied,
    ];
    let _ = [
        RecvError::Timeout,
        RecvError::VersionMismatch(version()),
        RecvError::TokenMismatch,
        RecvError::PermissionDenied,
    ];
    let _ = |error: RecvError| matches!(error, RecvError::Decode(_));
    let _ = |error: Error| matches!(error, Error::Decode(_));
}

fn receiving<R: MessageBox>(receiver: &EndpointReceiver<R>) {
    is_shared::<EndpointReceiver<R>>();
    let _: Result<Message<R>, RecvError> = receiver.recv(Some(Duration::ZERO));
    let _: Result<Message<R>, RecvError> = receiver.try_recv();
    for message in receiver {
        let _: Result<Message<R>, RecvError> = message;
    }
    let _ = receiver.iter().next();
    is_handle(receiver);
}

fn messages<T>(payload: T, object: Object, region: MemoryRegion) {
    let mut selector: Selector = Selector::unicast("a");
    selector = Selector {
        mode: SelectorMode::Multicast,
        ttl: Duration::from_secs(1),
        ..selector
    };
    let _: (&LabelOp, Selector) = (&selector.label_op, Selector::multicast(LabelOp::True));
    assert!(matches!(selector.mode, SelectorMode::Multicast));
    let mut message: Message<T> = Message::new(selector, payload);
    message.objects.push(object);
    message.memory_regions.push(region);
    let _: (Vec<Object>, Vec<MemoryRegion>) = (message.objects, message.memory_regions);
    let _: T = message.payload;
    let _ = BytesMessage {
        format: 1u16,
        data: vec![0u8],
    };
}

fn labels() {
    let mut label: Label = label!("a", "b",);
    label.insert("c");
    label.insert(String::from("d"));
    label.remove("d");
    let _: bool = label.all(["a", "b"]);
    let _: Vec<&str> = label.iter().collect();
    let _: Label = Label::from(["a"]);
    let _: Label = vec![String::from("a")].into();
    assert!(Label::default() == label!() && Label::default() != label);
    let op: LabelOp = LabelOp::from("a")
        .and("b")
        .or(String::from("c"))
        .and(LabelOp::False);
    let _: bool = (!op).validate(&label);
}

fn objects(object: Object, region: &mut MemoryRegion) -> Result<(), Box<dyn StdError>> {
    let copy: io::Result<Object> = object.clone();
    let raw = copy?.into_raw();
    let _ = object.as_raw();
    // SAFETY: it was given up just now.
    let again: Object = unsafe { Object::from_raw(raw) };
    let owned: common::Owned = common::owned(again);
    is_handle(&owned);
    let _: Object = owned.into();
    let _: fn(usize) -> MemoryRegion = MemoryRegion::new;
    let _: fn(usize) -> Result<MemoryRegion, Error> = MemoryRegion::try_new;
    fn map<R: RangeBounds<usize>>(region: &mut MemoryRegion, range: R) -> Result<&mut [u8], Error> {
        region.map(range)
    }
    let _: &mut [u8] = map(region, ..)?;
    let _: u32 = region.ref_count();
    let _: u64 = region.buffer_size();
    let _: io::Result<MemoryRegion> = region.clone();
    let _: &Object = region.object();
    let _: Result<MemoryRegion, Error> = MemoryRegion::from_object(region.object().clone()?);
    region.freeze()?;
    let _: &[u8] = region.as_frozen()?;
    let mut registry = MemoryRegistry::default();
    let _: MemoryRegion = registry.alloc(1, Some("tag"));
    let _: MemoryRegion = registry.alloc_with_free(1, None, || ());
    let _: Result<MemoryRegion, Error> = registry.try_alloc(1, None);
    let () = registry.maintain();
    Ok(())
}

fn versions() {
    let version: Version = ipmb::version();
    let text = format!(
        "{}.{}.{}",
        version.major(),
        version.minor(),
        version.patch()
    );
    let pre = ipmb::version_pre();
    assert!(version.to_string().starts_with(&text));
    let whole = match &*pre.to_string() {
        "" => text,
        pre => format!("{text}-{pre}"),
    };
    assert_eq!(whole, env!("CARGO_PKG_VERSION"));
}

#[test]
fn a_name_that_programs_use_is_gone_or_does_something_else() {
    versions();
    labels();
    errors();
    messages(Bare, null(), MemoryRegion::new(1));
    objects(null(), &mut MemoryRegion::new(1)).unwrap();
    let uuid = 0xdd95_ba8e_1279_47cf_925e_83e6_14e7_9588_u128;
    assert_eq!(BytesMessage::UUID, uuid.to_be_bytes());
    let options = Options::new(common::name("api"), label!("api"), "");
    let (sender, receiver) = ipmb::join::<(), ()>(options, None).unwrap();
    sender
        .send(Message::new(Selector::unicast("api"), ()))
        .unwrap();
    receiver.recv(None).unwrap();
}

/// Any object.
fn null() -> Object {
    let file = std::fs::File::open(common::ANY_FILE).unwrap();
    Object::from(common::Owned::from(file))
}

#[test]
fn a_send_that_no_endpoint_holds_up_names_one() {
    assert!(!SendError::Full(0).to_string().contains("endpoint"));
    assert!(SendError::Full(7).to_string().contains("endpoint 7"));
}
