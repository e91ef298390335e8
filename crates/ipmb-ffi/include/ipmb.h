// The C++ interface of the message bus ipmb: C++14, header-only, over ipmb_ffi.h.
//
// The classes own what they stand for and free it when they go; they can be moved, not copied. What was moved from, or
// could not be made, is empty: calls on it return Error::kInvalidArgument. Nothing here throws but what the standard
// library throws when memory runs out. Calls return an Error, last in a tuple where they return more; last_error()
// then says in words what went wrong on this thread.
//
// Which thread may call what, what blocks, and which errors there are: at the function of ipmb_ffi.h that is named with
// each method.

#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>

#include "ipmb_ffi.h"

namespace ipmb {

/// What went wrong: the codes of ipmb_ffi.h, positive.
enum class Error {
  kSuccess = 0,
  kUnknown = 1,
  kTimeout = 2,
  kDecode = 3,
  kVersionMismatch = 4,
  kTokenMismatch = 5,
  kPermissionDenied = 6,
  kInvalidArgument = 7,
  kInvalidUtf8 = 8,
  kOutOfRange = 9,
  kFull = 10,
  kEmpty = 11,
  kSettling = 12,
  kControllerStopped = 13,
  kTooLarge = 14,
  kLimit = 15,
  kExhausted = 16,
  kLeft = 17,
  kForked = 18,
  kBusy = 19,
  kFrozen = 20,
  kNotFrozen = 21,
  kNotARegion = 22,
  kNameSquatted = 23,
  kSystem = 24,
  kPanic = 25,
};

/// A text for an error (ipmb_strerror).
inline const char* error_text(Error error) {
  return ipmb_ffi::ipmb_strerror(-static_cast<ipmb_ffi::ErrorCode>(error));
}

/// The text of the last failure of a call on this thread (ipmb_last_error).
inline std::string last_error() { return ipmb_ffi::ipmb_last_error(); }

namespace detail {

inline Error error(ipmb_ffi::ErrorCode code) { return static_cast<Error>(-code); }

/// A text that C can take whole: it has no NUL inside.
inline bool whole(const std::string& text) { return text.find('\0') == std::string::npos; }

/// An owned handle; null when empty.
template <void (*Drop)(void*)>
class Handle {
 public:
  Handle() noexcept = default;
  explicit Handle(void* raw) noexcept : raw_(raw) {}
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  Handle(Handle&& other) noexcept : raw_(other.release()) {}
  Handle& operator=(Handle&& other) noexcept {
    reset(other.release());
    return *this;
  }
  ~Handle() { reset(nullptr); }

  /// Where the handle is: what most functions of ipmb_ffi.h take.
  void** place() noexcept { return &raw_; }
  void* const* place() const noexcept { return &raw_; }

  bool valid() const noexcept { return raw_ != nullptr; }

  void* release() noexcept {
    void* raw = raw_;
    raw_ = nullptr;
    return raw;
  }

  void reset(void* raw) noexcept {
    void* old = raw_;
    raw_ = raw;
    // Moving an object into itself keeps it.
    if (old != nullptr && old != raw) {
      Drop(old);
    }
  }

 private:
  void* raw_ = nullptr;
};

}  // namespace detail

/// The version of the library (ipmb_version, ipmb_version_pre).
class Version {
 public:
  Version() {
    ipmb_ffi::ipmb_version(&major, &minor, &patch);
    ipmb_ffi::RString text = ipmb_ffi::ipmb_version_pre();
    const char* data = nullptr;
    uintptr_t size = 0;
    ipmb_ffi::ipmb_rstring_data(&text, &data, &size);
    if (data != nullptr) {
      pre.assign(data, size);
    }
    ipmb_ffi::ipmb_rstring_drop(text);
  }

  uint8_t major = 0;
  uint8_t minor = 0;
  uint8_t patch = 0;
  /// The pre-release part, empty for a release.
  std::string pre;
};

/// A set of texts that an endpoint is found by (ipmb_label).
class Label {
 public:
  Label() : handle_(ipmb_ffi::ipmb_label()) {}

  Label(std::initializer_list<std::string> list) : Label() {
    for (const auto& text : list) {
      append(text);
    }
  }

  /// Adds a text (ipmb_label_insert). One that is not UTF-8 or has a NUL empties the label, so that nobody joins under
  /// less than was meant.
  Error append(const std::string& text) {
    Error error = Error::kInvalidArgument;
    if (detail::whole(text)) {
      error = detail::error(ipmb_ffi::ipmb_label_insert_try(handle_.place(), text.c_str()));
    }
    if (error != Error::kSuccess) {
      handle_.reset(nullptr);
    }
    return error;
  }

  /// Whether it is a label: not moved from, and no text was refused.
  bool valid() const { return handle_.valid(); }

 private:
  detail::Handle<ipmb_ffi::ipmb_label_drop> handle_;

  friend class Options;
  friend class LabelOp;
};

/// An expression over labels, which says who gets a message.
class LabelOp {
 public:
  /// Matches every label, or none (ipmb_label_op_bool).
  LabelOp(bool v) : handle_(ipmb_ffi::ipmb_label_op_bool(v)) {}

  /// Matches the labels with this text (ipmb_label_op_leaf). Of a text that is not UTF-8 or has a NUL it is empty.
  LabelOp(const std::string& s) {
    if (detail::whole(s)) {
      handle_.reset(ipmb_ffi::ipmb_label_op_leaf(s.c_str()));
    }
  }

  LabelOp(const char* s) : handle_(ipmb_ffi::ipmb_label_op_leaf(s)) {}

  /// Matches then what it did not.
  void op_not() { handle_.reset(ipmb_ffi::ipmb_label_op_not(handle_.release())); }

  /// Matches then only what `right` matches, too.
  void op_and(LabelOp right) {
    handle_.reset(ipmb_ffi::ipmb_label_op_and(handle_.release(), right.handle_.release()));
  }

  /// Matches then also what `right` matches.
  void op_or(LabelOp right) {
    handle_.reset(ipmb_ffi::ipmb_label_op_or(handle_.release(), right.handle_.release()));
  }

  /// Whether it matches a label (ipmb_label_op_validate).
  std::tuple<bool, Error> validate(const Label& label) const {
    bool matches = false;
    const auto code =
        ipmb_ffi::ipmb_label_op_validate(handle_.place(), label.handle_.place(), &matches);
    return std::make_tuple(matches, detail::error(code));
  }

  /// Whether it is an expression: not moved from, and made of valid ones.
  bool valid() const { return handle_.valid(); }

 private:
  detail::Handle<ipmb_ffi::ipmb_label_op_drop> handle_;

  friend class Selector;
};

/// Which bus to join, and as whom.
class Options {
 public:
  Options(std::string the_identifier, Label the_label, std::string the_token, bool affinity)
      : identifier(std::move(the_identifier)),
        label(std::move(the_label)),
        token(std::move(the_token)),
        controller_affinity(affinity) {}

  std::string identifier;
  Label label;
  std::string token;
  bool controller_affinity;

  /// For the functions of ipmb_ffi.h; valid while this object is unchanged. A NUL inside a text makes it NULL.
  ipmb_ffi::Options as_ffi() const {
    ipmb_ffi::Options options;
    options.identifier = detail::whole(identifier) ? identifier.c_str() : nullptr;
    options.label = label.handle_.place();
    options.token = detail::whole(token) ? token.c_str() : nullptr;
    options.controller_affinity = controller_affinity;
    return options;
  }
};

/// What a program may set when it joins, beyond Options. Each method is that of ipmb_ffi.h with the same name.
class Settings {
 public:
  Settings() : handle_(ipmb_ffi::ipmb_settings()) {}

  Error max_payload(size_t bytes) {
    return detail::error(ipmb_ffi::ipmb_settings_max_payload(handle_.place(), bytes));
  }
  Error max_region(uint64_t bytes) {
    return detail::error(ipmb_ffi::ipmb_settings_max_region(handle_.place(), bytes));
  }
  Error link_capacity(size_t bytes) {
    return detail::error(ipmb_ffi::ipmb_settings_link_capacity(handle_.place(), bytes));
  }
  Error self_queue(size_t bytes) {
    return detail::error(ipmb_ffi::ipmb_settings_self_queue(handle_.place(), bytes));
  }
  Error spin(uint32_t microseconds) {
    return detail::error(ipmb_ffi::ipmb_settings_spin(handle_.place(), microseconds));
  }
  Error idle_link(uint32_t milliseconds) {
    return detail::error(ipmb_ffi::ipmb_settings_idle_link(handle_.place(), milliseconds));
  }
  Error path(const std::string& path) {
    const char* text = detail::whole(path) ? path.c_str() : nullptr;
    return detail::error(ipmb_ffi::ipmb_settings_path(handle_.place(), text));
  }
  Error owner(uint32_t uid) {
    return detail::error(ipmb_ffi::ipmb_settings_owner(handle_.place(), uid));
  }
  Error allow_anyone() {
    return detail::error(ipmb_ffi::ipmb_settings_allow_anyone(handle_.place()));
  }
  Error allow_uid(uint32_t uid) {
    return detail::error(ipmb_ffi::ipmb_settings_allow_uid(handle_.place(), uid));
  }
  Error allow_gid(uint32_t gid) {
    return detail::error(ipmb_ffi::ipmb_settings_allow_gid(handle_.place(), gid));
  }

  const ipmb_ffi::Settings* as_ffi() const { return handle_.place(); }

 private:
  detail::Handle<ipmb_ffi::ipmb_settings_drop> handle_;
};

/// Who gets a message, and for how many milliseconds it waits when nobody does yet.
class Selector {
 public:
  Selector(LabelOp op, ipmb_ffi::SelectorMode how_many, uint32_t milliseconds)
      : label_op(std::move(op)), mode(how_many), ttl(milliseconds) {}

  LabelOp label_op;
  ipmb_ffi::SelectorMode mode;
  uint32_t ttl;

  /// For the functions of ipmb_ffi.h; valid while this object is unchanged.
  ipmb_ffi::Selector as_ffi() const {
    ipmb_ffi::Selector selector;
    selector.label_op = label_op.handle_.place();
    selector.mode = mode;
    selector.ttl = ttl;
    return selector;
  }
};

/// A handle of a memory that processes share without copying it.
class MemoryRegion {
 public:
  /// Empty.
  MemoryRegion() = default;

  /// Makes a region (ipmb_memory_region).
  static std::tuple<MemoryRegion, Error> create(uintptr_t size) {
    return make([&](void** raw) { return ipmb_ffi::ipmb_memory_region(size, raw); });
  }

  /// Makes a region of an object that is one (ipmb_memory_region_from_object).
  static std::tuple<MemoryRegion, Error> from_object(ipmb_ffi::Object object) {
    return make([&](void** raw) { return ipmb_ffi::ipmb_memory_region_from_object(object, raw); });
  }

  /// Maps `size` bytes, -1: to the end (ipmb_memory_region_map): where they are, and how many.
  std::tuple<uint8_t*, intptr_t, Error> map(uintptr_t offset, intptr_t size) {
    uint8_t* data = nullptr;
    size_t mapped = 0;
    const size_t wanted = size < 0 ? SIZE_MAX : static_cast<size_t>(size);
    const auto code =
        ipmb_ffi::ipmb_memory_region_map_try(handle_.place(), offset, wanted, &data, &mapped);
    return std::make_tuple(data, static_cast<intptr_t>(mapped), detail::error(code));
  }

  /// Undoes map (ipmb_memory_region_unmap).
  Error unmap() { return detail::error(ipmb_ffi::ipmb_memory_region_unmap(handle_.place())); }

  /// How many handles there are in all processes (ipmb_memory_region_ref_count).
  std::tuple<uint32_t, Error> ref_count() const {
    uint32_t count = 0;
    const auto code = ipmb_ffi::ipmb_memory_region_ref_count_try(handle_.place(), &count);
    return std::make_tuple(count, detail::error(code));
  }

  /// The size in bytes (ipmb_memory_region_size).
  std::tuple<uint64_t, Error> size() const {
    uint64_t size = 0;
    const auto code = ipmb_ffi::ipmb_memory_region_size(handle_.place(), &size);
    return std::make_tuple(size, detail::error(code));
  }

  /// One more handle of the same memory (ipmb_memory_region_clone).
  std::tuple<MemoryRegion, Error> clone() const {
    return make(
        [&](void** raw) { return ipmb_ffi::ipmb_memory_region_clone(handle_.place(), raw); });
  }

  /// Makes it immutable for everybody and for good (ipmb_memory_region_freeze).
  Error freeze() { return detail::error(ipmb_ffi::ipmb_memory_region_freeze(handle_.place())); }

  /// Whether it is frozen (ipmb_memory_region_is_frozen).
  std::tuple<bool, Error> is_frozen() const {
    bool frozen = false;
    const auto code = ipmb_ffi::ipmb_memory_region_is_frozen(handle_.place(), &frozen);
    return std::make_tuple(frozen, detail::error(code));
  }

  /// The bytes of a frozen region (ipmb_memory_region_frozen_data).
  std::tuple<const uint8_t*, size_t, Error> frozen_data() const {
    const uint8_t* data = nullptr;
    size_t size = 0;
    const auto code = ipmb_ffi::ipmb_memory_region_frozen_data(handle_.place(), &data, &size);
    return std::make_tuple(data, size, detail::error(code));
  }

  /// The kernel's handle, which stays the region's (ipmb_memory_region_object).
  std::tuple<ipmb_ffi::Object, Error> object() const {
    ipmb_ffi::Object object = 0;
    const auto code = ipmb_ffi::ipmb_memory_region_object(handle_.place(), &object);
    return std::make_tuple(object, detail::error(code));
  }

  /// Whether it is a region: not empty.
  bool valid() const { return handle_.valid(); }

 private:
  template <typename Make>
  static std::tuple<MemoryRegion, Error> make(Make&& make) {
    MemoryRegion region;
    const ipmb_ffi::ErrorCode code = make(region.handle_.place());
    return std::make_tuple(std::move(region), detail::error(code));
  }

  detail::Handle<ipmb_ffi::ipmb_memory_region_drop> handle_;

  friend class Message;
  friend class MemoryRegistry;
};

/// Gives out regions and uses their memory again once nobody else holds them.
class MemoryRegistry {
 public:
  MemoryRegistry() : handle_(ipmb_ffi::ipmb_memory_registry()) {}

  /// A region of at least `min_size` bytes (ipmb_memory_registry_alloc). `tag` may be null.
  std::tuple<MemoryRegion, Error> alloc(uintptr_t min_size, const std::string* tag) {
    if (tag != nullptr && !detail::whole(*tag)) {
      return std::make_tuple(MemoryRegion(), Error::kInvalidArgument);
    }
    const char* text = tag != nullptr ? tag->c_str() : nullptr;
    return MemoryRegion::make([&](void** raw) {
      return ipmb_ffi::ipmb_memory_registry_alloc(handle_.place(), min_size, text, raw);
    });
  }

  /// The same, and calls `free` once the region is free (ipmb_memory_registry_alloc_with_free). If it throws, the
  /// program ends (std::terminate). After an error it is not called.
  std::tuple<MemoryRegion, Error> alloc_with_free(uintptr_t min_size, const std::string* tag,
                                                  std::function<void()> free) {
    if (tag != nullptr && !detail::whole(*tag)) {
      return std::make_tuple(MemoryRegion(), Error::kInvalidArgument);
    }
    const char* text = tag != nullptr ? tag->c_str() : nullptr;
    // std::function cannot be empty where it is called.
    if (!free) {
      free = [] {};
    }
    auto context = std::make_unique<std::function<void()>>(std::move(free));
    auto result = MemoryRegion::make([&](void** raw) {
      return ipmb_ffi::ipmb_memory_registry_alloc_with_free(handle_.place(), min_size, text,
                                                            context.get(), call, raw);
    });
    if (std::get<1>(result) == Error::kSuccess) {
      // `call` deletes it.
      context.release();
    }
    return result;
  }

  /// Calls each `free` that is due, and gives unused memory back to the system (ipmb_memory_registry_maintain).
  Error maintain() {
    return detail::error(ipmb_ffi::ipmb_memory_registry_maintain_try(handle_.place()));
  }

 private:
  static void call(void* context) noexcept {
    const std::unique_ptr<std::function<void()>> free(static_cast<std::function<void()>*>(context));
    (*free)();
  }

  detail::Handle<ipmb_ffi::ipmb_memory_registry_drop> handle_;
};

/// Bytes with a number that says what they are, objects and memory regions.
class Message {
 public:
  /// Empty.
  Message() = default;

  /// A message with a copy of `size` bytes at `ptr` (ipmb_message); empty if that fails.
  Message(const Selector& selector, uint16_t format, const uint8_t* ptr, uint32_t size)
      : handle_(ipmb_ffi::ipmb_message(selector.as_ffi(), format, ptr, size)) {}

  /// The same for any size, with an error (ipmb_message_try).
  static std::tuple<Message, Error> create(const Selector& selector, uint16_t format,
                                           const uint8_t* ptr, size_t size) {
    Message message;
    const auto code =
        ipmb_ffi::ipmb_message_try(selector.as_ffi(), format, ptr, size, message.handle_.place());
    return std::make_tuple(std::move(message), detail::error(code));
  }

  /// The format, where the bytes are, and how many. kTooLarge over 4 GiB: use data.
  std::tuple<uint16_t, const uint8_t*, uint32_t, Error> bytes_data() const {
    const auto found = data();
    if (std::get<2>(found) > UINT32_MAX) {
      return std::make_tuple(uint16_t{0}, static_cast<const uint8_t*>(nullptr), uint32_t{0},
                             Error::kTooLarge);
    }
    return std::make_tuple(std::get<0>(found), std::get<1>(found),
                           static_cast<uint32_t>(std::get<2>(found)), std::get<3>(found));
  }

  /// The format, where the bytes are, and how many (ipmb_message_bytes_data_try).
  std::tuple<uint16_t, const uint8_t*, size_t, Error> data() const {
    uint16_t format = 0;
    const uint8_t* ptr = nullptr;
    size_t size = 0;
    const auto code =
        ipmb_ffi::ipmb_message_bytes_data_try(handle_.place(), &format, &ptr, &size);
    return std::make_tuple(format, ptr, size, detail::error(code));
  }

  /// Adds an object and takes it over; after an error it stays the caller's (ipmb_message_object_append_try).
  Error object_append(ipmb_ffi::Object object) {
    return detail::error(ipmb_ffi::ipmb_message_object_append_try(handle_.place(), object));
  }

  /// Takes an object out; it is the caller's then (ipmb_message_object_retrieve_try).
  std::tuple<ipmb_ffi::Object, Error> object_retrieve(uintptr_t index) {
    ipmb_ffi::Object object = 0;
    const auto code =
        ipmb_ffi::ipmb_message_object_retrieve_try(handle_.place(), index, &object);
    return std::make_tuple(object, detail::error(code));
  }

  /// An object, which stays the message's (ipmb_message_object_get_try).
  std::tuple<ipmb_ffi::Object, Error> object_get(uintptr_t index) const {
    ipmb_ffi::Object object = 0;
    const auto code = ipmb_ffi::ipmb_message_object_get_try(handle_.place(), index, &object);
    return std::make_tuple(object, detail::error(code));
  }

  /// How many objects there are (ipmb_message_object_count).
  std::tuple<size_t, Error> object_count() const {
    size_t count = 0;
    const auto code = ipmb_ffi::ipmb_message_object_count(handle_.place(), &count);
    return std::make_tuple(count, detail::error(code));
  }

  /// Adds a region (ipmb_message_memory_region_append_try); after an error it is freed.
  Error memory_region_append(MemoryRegion region) {
    const auto code = ipmb_ffi::ipmb_message_memory_region_append_try(handle_.place(),
                                                                      *region.handle_.place());
    if (code == ipmb_ffi::ERROR_CODE_SUCCESS) {
      region.handle_.release();
    }
    return detail::error(code);
  }

  /// Takes a region out (ipmb_message_memory_region_retrieve_try).
  std::tuple<MemoryRegion, Error> memory_region_retrieve(uintptr_t index) {
    return MemoryRegion::make([&](void** raw) {
      return ipmb_ffi::ipmb_message_memory_region_retrieve_try(handle_.place(), index, raw);
    });
  }

  /// How many regions there are (ipmb_message_memory_region_count).
  std::tuple<size_t, Error> memory_region_count() const {
    size_t count = 0;
    const auto code = ipmb_ffi::ipmb_message_memory_region_count(handle_.place(), &count);
    return std::make_tuple(count, detail::error(code));
  }

  /// How many receivers a multicast that was handed back did not reach (ipmb_message_unreached).
  std::tuple<size_t, Error> unreached() const {
    const uint64_t* endpoints = nullptr;
    size_t count = 0;
    const auto code = ipmb_ffi::ipmb_message_unreached(handle_.place(), &endpoints, &count);
    return std::make_tuple(count, detail::error(code));
  }

  /// Whether it is a message: not empty.
  bool valid() const { return handle_.valid(); }

 private:
  detail::Handle<ipmb_ffi::ipmb_message_drop> handle_;

  friend class Sender;
  friend class Receiver;
};

class Sender;
class Receiver;

std::tuple<Sender, Receiver, Error> join(const Options& options, uint32_t timeout);
std::tuple<Sender, Receiver, Error> join(const Options& options, const Settings& settings,
                                         uint32_t timeout);

/// The sending half of an endpoint. All threads may use it at the same time.
class Sender {
 public:
  /// Empty.
  Sender() = default;

  /// Sends a message; waits for space as long as it takes (ipmb_send).
  Error send(Message message) {
    return detail::error(ipmb_ffi::ipmb_send(handle_.place(), message.handle_.release()));
  }

  /// Sends a message if that is possible at once (ipmb_try_send). After an error `message` can be sent
  /// again; its regions have been unmapped.
  Error try_send(Message& message) const {
    return detail::error(ipmb_ffi::ipmb_try_send(handle_.place(), message.handle_.place()));
  }

  /// Sends a message; waits for space at most for `timeout` milliseconds (ipmb_send_timeout). After an error `message`
  /// can be sent again; its regions have been unmapped.
  Error send_timeout(Message& message, uint32_t timeout) const {
    return detail::error(
        ipmb_ffi::ipmb_send_timeout(handle_.place(), message.handle_.place(), timeout));
  }

  /// One more sender of the same endpoint (ipmb_sender_clone).
  std::tuple<Sender, Error> clone() const {
    Sender sender;
    const auto code = ipmb_ffi::ipmb_sender_clone(handle_.place(), sender.handle_.place());
    return std::make_tuple(std::move(sender), detail::error(code));
  }

  /// Leaves the bus in good order (ipmb_leave).
  Error leave(uint32_t timeout) const {
    return detail::error(ipmb_ffi::ipmb_leave(handle_.place(), timeout));
  }

  /// What the endpoint has done (ipmb_sender_stats).
  std::tuple<ipmb_ffi::Stats, Error> stats() const {
    ipmb_ffi::Stats stats{};
    const auto code = ipmb_ffi::ipmb_sender_stats(handle_.place(), &stats, sizeof(stats));
    return std::make_tuple(stats, detail::error(code));
  }

  /// Whether it is a sender: not empty.
  bool valid() const { return handle_.valid(); }

 private:
  detail::Handle<ipmb_ffi::ipmb_sender_drop> handle_;

  friend std::tuple<Sender, Receiver, Error> join(const Options&, uint32_t);
  friend std::tuple<Sender, Receiver, Error> join(const Options&, const Settings&, uint32_t);
};

/// The receiving half of an endpoint. All threads may use it at the same time.
class Receiver {
 public:
  /// Empty.
  Receiver() = default;

  /// Receives the next message; waits for it at most for `timeout` milliseconds (ipmb_recv).
  std::tuple<Message, Error> recv(uint32_t timeout) {
    Message message;
    const auto code = ipmb_ffi::ipmb_recv(handle_.place(), message.handle_.place(), timeout);
    return std::make_tuple(std::move(message), detail::error(code));
  }

  /// Receives a message if there is one now (ipmb_try_recv).
  std::tuple<Message, Error> try_recv() const {
    Message message;
    const auto code = ipmb_ffi::ipmb_try_recv(handle_.place(), message.handle_.place());
    return std::make_tuple(std::move(message), detail::error(code));
  }

  /// A descriptor to wait for; it stays the receiver's (ipmb_receiver_fd).
  std::tuple<int, Error> fd() const {
    int fd = -1;
    const auto code = ipmb_ffi::ipmb_receiver_fd(handle_.place(), &fd);
    return std::make_tuple(fd, detail::error(code));
  }

  /// Whether it is a receiver: not empty.
  bool valid() const { return handle_.valid(); }

 private:
  detail::Handle<ipmb_ffi::ipmb_receiver_drop> handle_;

  friend std::tuple<Sender, Receiver, Error> join(const Options&, uint32_t);
  friend std::tuple<Sender, Receiver, Error> join(const Options&, const Settings&, uint32_t);
};

/// Joins a bus, or starts it; waits at most for `timeout` milliseconds (ipmb_join).
inline std::tuple<Sender, Receiver, Error> join(const Options& options, uint32_t timeout) {
  Sender sender;
  Receiver receiver;
  const auto code = ipmb_ffi::ipmb_join(options.as_ffi(), timeout, sender.handle_.place(),
                                        receiver.handle_.place());
  return std::make_tuple(std::move(sender), std::move(receiver), detail::error(code));
}

/// The same with settings (ipmb_join_with).
inline std::tuple<Sender, Receiver, Error> join(const Options& options, const Settings& settings,
                                                uint32_t timeout) {
  Sender sender;
  Receiver receiver;
  const auto code =
      ipmb_ffi::ipmb_join_with(options.as_ffi(), settings.as_ffi(), timeout,
                               sender.handle_.place(), receiver.handle_.place());
  return std::make_tuple(std::move(sender), std::move(receiver), detail::error(code));
}

}  // namespace ipmb
