// The C interface of the message bus ipmb, for C (C11) and C++ (C++14, in the namespace ipmb_ffi).
//
// Made of the library's source by cbindgen; do not edit.
//
// What holds for all functions:
//
// * A handle (Sender, Receiver, Message, ...) is a `void *`. Most functions take a pointer to it; those that take the
//   handle itself take it over: it must not be used any more. A pointer may be NULL and a handle may be of another kind:
//   that is ERROR_CODE_INVALID_ARGUMENT. A handle that was dropped must not be used.
// * Where nothing is said of ownership, what a function is given stays the caller's.
// * A function that returns an ErrorCode returns 0 or a negative code. One that returns a value returns 0 or NULL if it
//   fails; one that returns nothing does nothing. In all three cases ipmb_last_error_code and ipmb_last_error then say
//   why, on the same thread. The functions that end in `_try` do the same as those without, with a code.
// * Texts are UTF-8 and end with a NUL. Times are in milliseconds.
// * "Thread-safe" means that all threads may call the function at the same time, with the same handles.
// * No function raises a signal, throws, or ends the program. None may be called in a signal handler.
// * In a child that was forked without exec, endpoints and regions of the parent are of no use (ERROR_CODE_FORKED); drop
//   them, or leave them alone.


#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus

// Programs that were written for older versions rely on them.
#include <cstdarg>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <ostream>

namespace ipmb_ffi {

/// What most functions return: 0 or a negative code.
using ErrorCode = int32_t;

/// How many of the matching endpoints get a message.
enum class SelectorMode : int32_t {
  /// One of them: the one that joined first.
  kUnicast = 0,
  /// All of them.
  kMulticast = 1,
};

/// A timeout that means: wait for ever.
constexpr static const uint32_t TIMEOUT_INFINITE = ~0u;

/// success
constexpr static const ErrorCode ERROR_CODE_SUCCESS = 0;
/// an error without a code of its own
constexpr static const ErrorCode ERROR_CODE_UNKNOWN = -1;
/// the time is up
constexpr static const ErrorCode ERROR_CODE_TIMEOUT = -2;
/// a payload does not decode; the message is gone, the next one can be received
constexpr static const ErrorCode ERROR_CODE_DECODE = -3;
/// the bus speaks an incompatible version of the protocol
constexpr static const ErrorCode ERROR_CODE_VERSION_MISMATCH = -4;
/// the bus has another token
constexpr static const ErrorCode ERROR_CODE_TOKEN_MISMATCH = -5;
/// the access rules of the bus do not admit this user
constexpr static const ErrorCode ERROR_CODE_PERMISSION_DENIED = -6;
/// a null pointer, a handle of another kind, or a value that is not allowed
constexpr static const ErrorCode ERROR_CODE_INVALID_ARGUMENT = -7;
/// a text is not UTF-8
constexpr static const ErrorCode ERROR_CODE_INVALID_UTF8 = -8;
/// an index or a range is out of bounds
constexpr static const ErrorCode ERROR_CODE_OUT_OF_RANGE = -9;
/// there is no space at a receiver now
constexpr static const ErrorCode ERROR_CODE_FULL = -10;
/// there is no message now
constexpr static const ErrorCode ERROR_CODE_EMPTY = -11;
/// a new controller is being elected; who matches is not settled yet
constexpr static const ErrorCode ERROR_CODE_SETTLING = -12;
/// the process that hosts the controller is stopped
constexpr static const ErrorCode ERROR_CODE_CONTROLLER_STOPPED = -13;
/// a payload or a memory region is larger than its limit
constexpr static const ErrorCode ERROR_CODE_TOO_LARGE = -14;
/// a label, a selector or the number of attachments is over its limit
constexpr static const ErrorCode ERROR_CODE_LIMIT = -15;
/// descriptors, memory or handles under way ran out
constexpr static const ErrorCode ERROR_CODE_EXHAUSTED = -16;
/// the endpoint has left the bus
constexpr static const ErrorCode ERROR_CODE_LEFT = -17;
/// the handle belongs to the parent of this forked process
constexpr static const ErrorCode ERROR_CODE_FORKED = -18;
/// the memory region is mapped somewhere, or the registry is in use by a caller further up
constexpr static const ErrorCode ERROR_CODE_BUSY = -19;
/// the memory region is frozen and cannot be mapped writably
constexpr static const ErrorCode ERROR_CODE_FROZEN = -20;
/// the memory region is not frozen
constexpr static const ErrorCode ERROR_CODE_NOT_FROZEN = -21;
/// the object is no memory region
constexpr static const ErrorCode ERROR_CODE_NOT_A_REGION = -22;
/// the name of the bus is held by a user who may not host it
constexpr static const ErrorCode ERROR_CODE_NAME_SQUATTED = -23;
/// the operating system refused a call
constexpr static const ErrorCode ERROR_CODE_SYSTEM = -24;
/// the library failed within itself; please report it with the text of ipmb_last_error
constexpr static const ErrorCode ERROR_CODE_PANIC = -25;
/// the controller has no room for another endpoint
constexpr static const ErrorCode ERROR_CODE_BUS_FULL = -26;
/// ipmb does not run on this operating system
constexpr static const ErrorCode ERROR_CODE_UNSUPPORTED_SYSTEM = -27;

}  // namespace ipmb_ffi

#else

/// What most functions return: 0 or a negative code.
typedef int32_t ErrorCode;

/// How many of the matching endpoints get a message.
typedef int32_t SelectorMode;
enum {
  /// One of them: the one that joined first.
  kUnicast = 0,
  /// All of them.
  kMulticast = 1
};

/// A timeout that means: wait for ever.
#define TIMEOUT_INFINITE (~0u)

/// success
#define ERROR_CODE_SUCCESS (0)
/// an error without a code of its own
#define ERROR_CODE_UNKNOWN (-1)
/// the time is up
#define ERROR_CODE_TIMEOUT (-2)
/// a payload does not decode; the message is gone, the next one can be received
#define ERROR_CODE_DECODE (-3)
/// the bus speaks an incompatible version of the protocol
#define ERROR_CODE_VERSION_MISMATCH (-4)
/// the bus has another token
#define ERROR_CODE_TOKEN_MISMATCH (-5)
/// the access rules of the bus do not admit this user
#define ERROR_CODE_PERMISSION_DENIED (-6)
/// a null pointer, a handle of another kind, or a value that is not allowed
#define ERROR_CODE_INVALID_ARGUMENT (-7)
/// a text is not UTF-8
#define ERROR_CODE_INVALID_UTF8 (-8)
/// an index or a range is out of bounds
#define ERROR_CODE_OUT_OF_RANGE (-9)
/// there is no space at a receiver now
#define ERROR_CODE_FULL (-10)
/// there is no message now
#define ERROR_CODE_EMPTY (-11)
/// a new controller is being elected; who matches is not settled yet
#define ERROR_CODE_SETTLING (-12)
/// the process that hosts the controller is stopped
#define ERROR_CODE_CONTROLLER_STOPPED (-13)
/// a payload or a memory region is larger than its limit
#define ERROR_CODE_TOO_LARGE (-14)
/// a label, a selector or the number of attachments is over its limit
#define ERROR_CODE_LIMIT (-15)
/// descriptors, memory or handles under way ran out
#define ERROR_CODE_EXHAUSTED (-16)
/// the endpoint has left the bus
#define ERROR_CODE_LEFT (-17)
/// the handle belongs to the parent of this forked process
#define ERROR_CODE_FORKED (-18)
/// the memory region is mapped somewhere, or the registry is in use by a caller further up
#define ERROR_CODE_BUSY (-19)
/// the memory region is frozen and cannot be mapped writably
#define ERROR_CODE_FROZEN (-20)
/// the memory region is not frozen
#define ERROR_CODE_NOT_FROZEN (-21)
/// the object is no memory region
#define ERROR_CODE_NOT_A_REGION (-22)
/// the name of the bus is held by a user who may not host it
#define ERROR_CODE_NAME_SQUATTED (-23)
/// the operating system refused a call
#define ERROR_CODE_SYSTEM (-24)
/// the library failed within itself; please report it with the text of ipmb_last_error
#define ERROR_CODE_PANIC (-25)
/// the controller has no room for another endpoint
#define ERROR_CODE_BUS_FULL (-26)
/// ipmb does not run on this operating system
#define ERROR_CODE_UNSUPPORTED_SYSTEM (-27)

#endif

#ifdef __cplusplus
namespace ipmb_ffi {
#endif  // __cplusplus

/// A text that the library hands out. Owned by the caller: free it with ipmb_rstring_drop.
typedef void *RString;

/// A set of texts that an endpoint is found by. Owned by the caller: free it with ipmb_label_drop.
typedef void *Label;

/// An expression over labels, which says who gets a message. Owned by the caller: free it with ipmb_label_op_drop.
typedef void *LabelOp;

/// A kernel object: on Unix, a file descriptor; on macOS, the name of a right to send to a Mach port, which for a
/// descriptor is its file port (fileport_makeport); on Windows, a HANDLE.
typedef uint64_t Object;

/// A handle of a memory that processes share without copying it. Owned by the caller: free it with
/// ipmb_memory_region_drop, or put it into a message. One thread at a time may use a handle; different threads one after
/// the other.
typedef void *MemoryRegion;

/// Gives out memory regions and uses their memory again once nobody else, in any process, holds them. Owned by the
/// caller: free it with ipmb_memory_registry_drop. One thread at a time may use it; different threads one after the other.
typedef void *MemoryRegistry;

/// A message: bytes with a number that says what they are, objects and memory regions. Owned by the caller: free it with
/// ipmb_message_drop, or send it. One thread at a time may use it; different threads one after the other.
typedef void *Message;

/// Who gets a message. Plain data of the caller; the functions that take it copy what they need.
typedef struct Selector {
  /// Which labels match. Stays the caller's.
  const LabelOp *label_op;
  /// One or all of those that match.
  SelectorMode mode;
  /// How long the message waits for somebody to match while nobody does, in milliseconds. 0: it does not.
  uint32_t ttl;
} Selector;

/// What a program may set when it joins a bus, beyond Options. Owned by the caller: free it with ipmb_settings_drop. One
/// thread at a time may use it.
typedef void *Settings;

/// Which bus to join, and as whom. Plain data of the caller; the functions that take it copy what they need.
typedef struct Options {
  /// Names the bus, together with the effective user: UTF-8, 1 to 4096 bytes, such as "com.example.app.1".
  const char *identifier;
  /// What the endpoint is found by. Stays the caller's.
  const Label *label;
  /// What all members of the bus must know: UTF-8, may be empty.
  const char *token;
  /// Whether the endpoint may host the controller. False for programs that are often stopped or debugged.
  bool controller_affinity;
} Options;

/// The sending half of an endpoint. Owned by the caller: free it with ipmb_sender_drop. All threads may use it at the
/// same time.
typedef void *Sender;

/// The receiving half of an endpoint. Owned by the caller: free it with ipmb_receiver_drop. All threads may use it at the
/// same time; each message goes to one of them.
typedef void *Receiver;

/// What an endpoint has done since it joined. Later versions of the library add fields at the end.
typedef struct Stats {
  /// Messages put into links; a multicast counts once per receiver.
  uint64_t sent;
  /// Bytes of their payloads.
  uint64_t sent_bytes;
  /// Messages received.
  uint64_t received;
  /// Bytes of their payloads.
  uint64_t received_bytes;
  /// Messages skipped because they are not of the type that is taken here.
  uint64_t skipped;
  /// Messages that nobody matched and that had no time to live.
  uint64_t dropped;
  /// Messages that waited because nobody matched yet.
  uint64_t parked;
  /// Waiting messages whose time was over.
  uint64_t expired;
  /// Messages that a dead receiver had not taken and that went to another.
  uint64_t rerouted;
  /// Messages that a dead receiver had not taken and that could go to nobody: with objects or regions, or nobody else
  /// matched and there was no ttl. Copies of multicasts do not count. Also parked messages that did not get through.
  uint64_t lost;
  /// How often a send found a link full and waited.
  uint64_t blocked;
  /// How long those waits took, in nanoseconds.
  uint64_t blocked_ns;
  /// Links to other endpoints.
  uint64_t links_out;
  /// Links from other endpoints.
  uint64_t links_in;
} Stats;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/// A text for an error code, in English, without a full stop.
///
/// Ownership: the text is static; do not free it. Never NULL. Thread-safe; does not block; cannot fail. A number that is no
/// error code of this library has a text that says so. ipmb_last_error tells more about one failure.
const char *ipmb_strerror(ErrorCode code);

/// The text of the last failure on the calling thread: what is wrong and, where there is one, the remedy. In English,
/// UTF-8. Empty if nothing failed since the thread began or called ipmb_clear_last_error; a success does not change it.
///
/// Ownership: the text is the library's. It stays valid until a function of this library fails on the same thread,
/// ipmb_clear_last_error is called there, or the thread ends. Never NULL. Thread-safe; does not block; cannot fail.
const char *ipmb_last_error(void);

/// The code of the last failure on the calling thread, ERROR_CODE_SUCCESS if there is none. The functions that return a
/// value instead of a code tell their failures here.
///
/// Thread-safe; does not block; cannot fail.
ErrorCode ipmb_last_error_code(void);

/// Forgets the last failure of the calling thread: the text is empty and the code ERROR_CODE_SUCCESS until the next.
///
/// Thread-safe; does not block; cannot fail.
void ipmb_clear_last_error(void);

/// Where the bytes of a text are, and how many. They are UTF-8 and not terminated by a NUL. After a failure `*ptr` is
/// NULL and `*size` 0.
///
/// Ownership: the bytes stay the text's and are valid until it is dropped. Thread-safe as long as nobody drops it; does
/// not block. Errors (ipmb_last_error_code): ERROR_CODE_INVALID_ARGUMENT.
void ipmb_rstring_data(const RString *rstring,
                       const char **ptr,
                       uintptr_t *size);

/// Frees a text. NULL is fine.
///
/// Takes ownership of the text. Thread-safe; does not block. Errors (ipmb_last_error_code): ERROR_CODE_INVALID_ARGUMENT.
void ipmb_rstring_drop(RString rstring);

/// The version of the library. A pointer that is NULL is left out.
///
/// Thread-safe; does not block; cannot fail.
void ipmb_version(uint8_t *major, uint8_t *minor, uint8_t *patch);

/// The pre-release part of the library's version; an empty text for a release.
///
/// Ownership: the caller frees it with ipmb_rstring_drop. Thread-safe; does not block; cannot fail.
RString ipmb_version_pre(void);

/// As ipmb_version_pre, with a code.
///
/// Ownership: `*rstring` is the caller's, to be freed with ipmb_rstring_drop. Thread-safe; does not block.
/// Errors: ERROR_CODE_INVALID_ARGUMENT.
ErrorCode ipmb_version_pre_try(RString *rstring);

/// An empty label.
///
/// Ownership: the caller frees it with ipmb_label_drop. Thread-safe; does not block; cannot fail.
Label ipmb_label(void);

/// Frees a label. NULL is fine. Endpoints that joined with it keep a copy.
///
/// Takes ownership of the label. Thread-safe; does not block. Errors (ipmb_last_error_code):
/// ERROR_CODE_INVALID_ARGUMENT.
void ipmb_label_drop(Label label);

/// Adds a text to a label. After a failure the label is unchanged; ipmb_label_insert_try tells it directly.
///
/// Ownership: `s` is copied. One thread at a time may use a label; does not block. Errors (ipmb_last_error_code):
/// as ipmb_label_insert_try.
void ipmb_label_insert(Label *label,
                       const char *s);

/// Adds a text to a label. A text that is there already is not added again. That a label has at most 64 texts of at most
/// 256 bytes is checked when an endpoint joins with it.
///
/// Ownership: `s` is copied. One thread at a time may use a label; does not block. Errors:
/// ERROR_CODE_INVALID_ARGUMENT, ERROR_CODE_INVALID_UTF8.
ErrorCode ipmb_label_insert_try(Label *label,
                                const char *s);

/// An expression that matches every label (true) or none (false).
///
/// Ownership: the caller frees it with ipmb_label_op_drop, or gives it to a function that takes it. Thread-safe; does
/// not block; cannot fail.
LabelOp ipmb_label_op_bool(bool v);

/// An expression that matches the labels with this text; NULL after a failure.
///
/// Ownership: `s` is copied; the caller frees the result with ipmb_label_op_drop, or gives it to a function that takes
/// it. Thread-safe; does not block. Errors (ipmb_last_error_code): as ipmb_label_op_leaf_try.
LabelOp ipmb_label_op_leaf(const char *s);

/// As ipmb_label_op_leaf, with a code. After a failure `*op` is unchanged.
///
/// Ownership: `s` is copied; `*op` is the caller's. Thread-safe; does not block. Errors: ERROR_CODE_INVALID_ARGUMENT,
/// ERROR_CODE_INVALID_UTF8.
ErrorCode ipmb_label_op_leaf_try(const char *s,
                                 LabelOp *op);

/// Frees an expression. NULL is fine. Messages that were made with it keep a copy.
///
/// Takes ownership of the expression. Thread-safe; does not block. Errors (ipmb_last_error_code):
/// ERROR_CODE_INVALID_ARGUMENT.
void ipmb_label_op_drop(LabelOp left);

/// An expression that matches what `left` does not; NULL after a failure.
///
/// Takes ownership of `left`; the result is the caller's. Thread-safe; does not block. Errors (ipmb_last_error_code):
/// ERROR_CODE_INVALID_ARGUMENT.
LabelOp ipmb_label_op_not(LabelOp left);

/// As ipmb_label_op_not, with a code. After a failure `*op` is unchanged.
///
/// Takes ownership of `left`, also when it fails, unless `left` is a handle of another kind. Thread-safe; does not
/// block. Errors: ERROR_CODE_INVALID_ARGUMENT.
ErrorCode ipmb_label_op_not_try(LabelOp left,
                                LabelOp *op);

/// An expression that matches what both match; NULL after a failure.
///
/// Takes ownership of both operands, also when it fails; the result is the caller's. Thread-safe; does not block.
/// Errors (ipmb_last_error_code): ERROR_CODE_INVALID_ARGUMENT, also if both are the same handle.
LabelOp ipmb_label_op_and(LabelOp left,
                          LabelOp right);

/// As ipmb_label_op_and, with a code. After a failure `*op` is unchanged.
///
/// Takes ownership of both operands, also when it fails, but for those that are handles of another kind. Thread-safe;
/// does not block. Errors: as ipmb_label_op_and.
ErrorCode ipmb_label_op_and_try(LabelOp left,
                                LabelOp right,
                                LabelOp *op);

/// An expression that matches what at least one of both matches; NULL after a failure.
///
/// Takes ownership of both operands, also when it fails; the result is the caller's. Thread-safe; does not block.
/// Errors (ipmb_last_error_code): ERROR_CODE_INVALID_ARGUMENT, also if both are the same handle.
LabelOp ipmb_label_op_or(LabelOp left,
                         LabelOp right);

/// As ipmb_label_op_or, with a code. After a failure `*op` is unchanged.
///
/// Takes ownership of both operands, also when it fails, but for those that are handles of another kind. Thread-safe;
/// does not block. Errors: as ipmb_label_op_and.
ErrorCode ipmb_label_op_or_try(LabelOp left,
                               LabelOp right,
                               LabelOp *op);

/// Whether an expression matches a label, into `*matches`.
///
/// Ownership: both stay the caller's. Thread-safe as long as nobody changes or drops them; does not block. Errors:
/// ERROR_CODE_INVALID_ARGUMENT.
ErrorCode ipmb_label_op_validate(const LabelOp *op,
                                 const Label *label,
                                 bool *matches);

/// Closes an object that the caller owns. 0 is fine: it is what the functions of this library return for no object.
///
/// Takes ownership of the object. Thread-safe; does not block. Errors (ipmb_last_error_code):
/// ERROR_CODE_INVALID_ARGUMENT.
void ipmb_object_drop(Object obj);

/// Closes an object that the caller owns, also one with the number 0.
///
/// Takes ownership of the object. Thread-safe; does not block. Errors: ERROR_CODE_INVALID_ARGUMENT.
ErrorCode ipmb_object_drop_try(Object obj);

/// Makes a region of `size` bytes, all zero. Memory is used as it is touched. After a failure `*region` is unchanged.
///
/// Ownership: `*region` is the caller's, to be freed with ipmb_memory_region_drop. Thread-safe; does not block. Errors:
/// ERROR_CODE_INVALID_ARGUMENT, ERROR_CODE_EXHAUSTED, ERROR_CODE_SYSTEM.
ErrorCode ipmb_memory_region(uintptr_t size,
                             MemoryRegion *region);

/// Frees a handle of a region and unmaps what it had mapped; the memory goes with its last handle in any process. NULL is
/// fine.
///
/// Takes ownership of the handle. Thread-safe; does not block. Errors (ipmb_last_error_code):
/// ERROR_CODE_INVALID_ARGUMENT.
void ipmb_memory_region_drop(MemoryRegion region);

/// Maps `size` bytes (negative: to the end) from `offset` on, to be read and written. Returns where they are and, into
/// `*real_size` unless that is NULL, how many. NULL after a failure, and `*real_size` is 0 then.
///
/// Other holders, in other processes, may write to the same bytes at any time: agree with them on turns, or freeze the
/// region.
///
/// Ownership: the bytes are valid until this handle is dropped, frozen or unmapped, or an attempt is made to send the
/// message that has it, even one that fails. One thread at a time may use a handle, but all may use the bytes; does not
/// block. Errors (ipmb_last_error_code): as ipmb_memory_region_map_try.
uint8_t *ipmb_memory_region_map(MemoryRegion *region,
                                uintptr_t offset,
                                intptr_t size,
                                intptr_t *real_size);

/// Maps `size` bytes (SIZE_MAX: to the end) from `offset` on, to be read and written: where they are, and how many. A
/// pointer `real_size` that is NULL is left out. After a failure nothing is written.
///
/// Other holders, in other processes, may write to the same bytes at any time: agree with them on turns, or freeze the
/// region.
///
/// Ownership: the bytes are valid until this handle is dropped, frozen or unmapped, or an attempt is made to send the
/// message that has it, even one that fails. One thread at a time may use a handle, but all may use the bytes; does not
/// block. Errors: ERROR_CODE_INVALID_ARGUMENT, ERROR_CODE_OUT_OF_RANGE,
/// ERROR_CODE_FROZEN, ERROR_CODE_EXHAUSTED, ERROR_CODE_FORKED, ERROR_CODE_SYSTEM.
ErrorCode ipmb_memory_region_map_try(MemoryRegion *region,
                                     size_t offset,
                                     size_t size,
                                     uint8_t **ptr,
                                     size_t *real_size);

/// Undoes ipmb_memory_region_map, so that another holder may freeze the region. What is not mapped is no failure.
///
/// The bytes that were mapped must not be used any more. One thread at a time may use a handle; does not block. Errors:
/// ERROR_CODE_INVALID_ARGUMENT.
ErrorCode ipmb_memory_region_unmap(MemoryRegion *region);

/// The size of a region in bytes, into `*size`.
///
/// Thread-safe as long as nobody drops the handle; does not block. Errors: ERROR_CODE_INVALID_ARGUMENT.
ErrorCode ipmb_memory_region_size(const MemoryRegion *region, uint64_t *size);

/// How many handles of the region's memory there are in all processes, this one and those in messages under way
/// included. It may have changed by the time it is returned. 0 after a failure, and in a forked child.
///
/// Thread-safe as long as nobody drops the handle; does not block. Errors (ipmb_last_error_code):
/// ERROR_CODE_INVALID_ARGUMENT.
uint32_t ipmb_memory_region_ref_count(const MemoryRegion *region);

/// As ipmb_memory_region_ref_count, with a code.
///
/// Thread-safe as long as nobody drops the handle; does not block. Errors: ERROR_CODE_INVALID_ARGUMENT.
ErrorCode ipmb_memory_region_ref_count_try(const MemoryRegion *region, uint32_t *count);

/// One more handle of the same memory. After a failure `*cloned` is unchanged.
///
/// Ownership: `*cloned` is the caller's, to be freed with ipmb_memory_region_drop. Thread-safe as long as nobody drops
/// the handle; does not block. Errors: ERROR_CODE_INVALID_ARGUMENT, ERROR_CODE_EXHAUSTED, ERROR_CODE_SYSTEM.
ErrorCode ipmb_memory_region_clone(const MemoryRegion *region,
                                   MemoryRegion *cloned);

/// Makes a region immutable for everybody and for good. Doing it twice is fine. What this handle has mapped is unmapped
/// first. After a failure nothing has changed, but for that.
///
/// One thread at a time may use a handle. May wait some 100 ms for the kernel. Errors: ERROR_CODE_INVALID_ARGUMENT,
/// ERROR_CODE_BUSY while another handle, in any process, has it mapped, ERROR_CODE_FORKED, ERROR_CODE_SYSTEM.
ErrorCode ipmb_memory_region_freeze(MemoryRegion *region);

/// Whether a region is frozen, into `*frozen`. Once it is, it stays so.
///
/// Thread-safe as long as nobody drops the handle; does not block. Errors: ERROR_CODE_INVALID_ARGUMENT.
ErrorCode ipmb_memory_region_is_frozen(const MemoryRegion *region, bool *frozen);

/// The bytes of a frozen region, which nobody can ever change: where they are, and how many. After a failure nothing is
/// written.
///
/// Ownership: the bytes are valid until this handle is dropped or sent. Thread-safe as long as nobody does; does not
/// block. Errors: ERROR_CODE_INVALID_ARGUMENT, ERROR_CODE_NOT_FROZEN, ERROR_CODE_EXHAUSTED, ERROR_CODE_FORKED,
/// ERROR_CODE_SYSTEM.
ErrorCode ipmb_memory_region_frozen_data(const MemoryRegion *region,
                                         const uint8_t **ptr,
                                         size_t *size);

/// The kernel's handle of a region, for uses outside this library. Copies of it do not count in the region's reference
/// count.
///
/// Ownership: `*obj` is borrowed: do not close it; it is valid until the region is dropped or sent. Thread-safe as long
/// as nobody does; does not block. Errors: ERROR_CODE_INVALID_ARGUMENT.
ErrorCode ipmb_memory_region_object(const MemoryRegion *region,
                                    Object *obj);

/// Makes a region of an object that is one: of a copy of what ipmb_memory_region_object gives, or of a sealed memfd that
/// another program made. After a failure `*region` is unchanged.
///
/// Takes ownership of the object and closes it, unless the failure is ERROR_CODE_INVALID_ARGUMENT. `*region` is the
/// caller's, to be freed with ipmb_memory_region_drop. Thread-safe; does not block. Errors: ERROR_CODE_INVALID_ARGUMENT,
/// ERROR_CODE_NOT_A_REGION, ERROR_CODE_EXHAUSTED, ERROR_CODE_SYSTEM.
ErrorCode ipmb_memory_region_from_object(Object obj,
                                         MemoryRegion *region);

/// An empty registry.
///
/// Ownership: the caller frees it with ipmb_memory_registry_drop. Thread-safe; does not block; cannot fail.
MemoryRegistry ipmb_memory_registry(void);

/// Frees a registry, and calls each `free` that it has not called yet, be the region still held or not. Regions that it
/// gave out live on. NULL is fine.
///
/// Takes ownership of the registry; one thread at a time may use it. Does not block, but for what `free` does. Errors
/// (ipmb_last_error_code): ERROR_CODE_INVALID_ARGUMENT, and ERROR_CODE_BUSY from within a `free` of this registry;
/// nothing is freed then.
void ipmb_memory_registry_drop(MemoryRegistry registry);

/// Gives out a region of at least `min_size` bytes. Its first bytes may be what an earlier user of this registry and tag
/// left there. `tag` (NULL: none) keeps users apart who must not see each other's data. After a failure `*region` is
/// unchanged.
///
/// Ownership: `tag` is copied; `*region` is the caller's, to be freed with ipmb_memory_region_drop. One thread at a time
/// may use a registry; does not block, but for what a `free` that is due does. Errors: ERROR_CODE_INVALID_ARGUMENT,
/// ERROR_CODE_INVALID_UTF8, ERROR_CODE_BUSY from within a `free` of this registry, ERROR_CODE_EXHAUSTED,
/// ERROR_CODE_SYSTEM.
ErrorCode ipmb_memory_registry_alloc(MemoryRegistry *registry,
                                     uintptr_t min_size,
                                     const char *tag,
                                     MemoryRegion *region);

/// As ipmb_memory_registry_alloc, and calls `free(free_context)` once the region is free: exactly once, on the thread
/// that uses the registry, in the first call of ipmb_memory_registry_alloc, ipmb_memory_registry_alloc_with_free or
/// ipmb_memory_registry_maintain after it became free, or when the registry is dropped. A `free` that is NULL is not
/// called. After a failure `free` is not called and `*region` is unchanged.
///
/// `free` must return: it may neither throw nor jump out. It may not use this registry (ERROR_CODE_BUSY).
///
/// Ownership: `tag` is copied; `free_context` is only handed to `free`; `*region` is the caller's. One thread at a time
/// may use a registry; does not block, but for what a `free` that is due does. Errors: as ipmb_memory_registry_alloc.
ErrorCode ipmb_memory_registry_alloc_with_free(MemoryRegistry *registry,
                                               uintptr_t min_size,
                                               const char *tag,
                                               void *free_context,
                                               void (*free)(void*),
                                               MemoryRegion *region);

/// Calls each `free` that is due, and gives memory back to the system that was not used for 5 seconds. Call it now and
/// then if allocations are rare; ipmb_memory_registry_maintain_try tells failures directly.
///
/// One thread at a time may use a registry; does not block, but for what `free` does. Errors (ipmb_last_error_code):
/// as ipmb_memory_registry_maintain_try.
void ipmb_memory_registry_maintain(MemoryRegistry *registry);

/// As ipmb_memory_registry_maintain, with a code.
///
/// One thread at a time may use a registry; does not block, but for what `free` does. Errors:
/// ERROR_CODE_INVALID_ARGUMENT, ERROR_CODE_BUSY from within a `free` of this registry.
ErrorCode ipmb_memory_registry_maintain_try(MemoryRegistry *registry);

/// Makes a message with a copy of `size` bytes at `ptr`; NULL after a failure. With a size of 0, `ptr` may be NULL.
///
/// Ownership: `selector` and the bytes are copied and stay the caller's; the caller frees the result with
/// ipmb_message_drop or sends it. Thread-safe; does not block. Errors (ipmb_last_error_code): as ipmb_message_try,
/// which takes more than 4 GiB, too.
Message ipmb_message(struct Selector selector,
                     uint16_t format,
                     const uint8_t *ptr,
                     uint32_t size);

/// As ipmb_message, with a code and for any size. After a failure `*message` is unchanged.
///
/// Ownership: `selector` and the bytes are copied and stay the caller's; `*message` is the caller's. Thread-safe; does
/// not block. Errors: ERROR_CODE_INVALID_ARGUMENT (also for a mode that is none), ERROR_CODE_TOO_LARGE,
/// ERROR_CODE_EXHAUSTED.
ErrorCode ipmb_message_try(struct Selector selector,
                           uint16_t format,
                           const uint8_t *ptr,
                           size_t size,
                           Message *message);

/// Frees a message with the objects and regions that are still in it. NULL is fine.
///
/// Takes ownership of the message. Thread-safe; does not block. Errors (ipmb_last_error_code):
/// ERROR_CODE_INVALID_ARGUMENT.
void ipmb_message_drop(Message message);

/// A message's format, and where its bytes are and how many. After a failure all three are 0 or NULL. More than 4 GiB do
/// not fit into `*size` and are a failure; use ipmb_message_bytes_data_try. A pointer that is NULL is left out.
///
/// Ownership: the bytes stay the message's and are valid until it is sent or dropped. Thread-safe as long as nobody sends
/// or drops it; does not block. Errors (ipmb_last_error_code): ERROR_CODE_INVALID_ARGUMENT, ERROR_CODE_TOO_LARGE.
void ipmb_message_bytes_data(const Message *message,
                             uint16_t *format,
                             const uint8_t **ptr,
                             uint32_t *size);

/// As ipmb_message_bytes_data, with a code and for any size. After a failure nothing is written. A pointer that is NULL
/// is left out.
///
/// Ownership: the bytes stay the message's and are valid until it is sent or dropped. Thread-safe as long as nobody sends
/// or drops it; does not block. Errors: ERROR_CODE_INVALID_ARGUMENT.
ErrorCode ipmb_message_bytes_data_try(const Message *message,
                                      uint16_t *format,
                                      const uint8_t **ptr,
                                      size_t *size);

/// Adds an object behind the others. After a failure it stays the caller's; ipmb_message_object_append_try tells it
/// directly.
///
/// Takes ownership of the object. One thread at a time may use a message; does not block. Errors
/// (ipmb_last_error_code): as ipmb_message_object_append_try.
void ipmb_message_object_append(Message *message,
                                Object obj);

/// Adds an object behind the others. That there are at most 253 is checked when the message is sent.
///
/// Takes ownership of the object; after a failure it stays the caller's. One thread at a time may use a message; does
/// not block. Errors: ERROR_CODE_INVALID_ARGUMENT, also if the object is not open.
ErrorCode ipmb_message_object_append_try(Message *message,
                                         Object obj);

/// How many objects a message has, into `*count`.
///
/// Thread-safe as long as nobody changes or drops the message; does not block. Errors: ERROR_CODE_INVALID_ARGUMENT.
ErrorCode ipmb_message_object_count(const Message *message,
                                    size_t *count);

/// Takes an object out of a message; those behind it move up. 0 after a failure.
///
/// Ownership: the object is the caller's, to be closed with ipmb_object_drop. One thread at a time may use a message;
/// does not block. Errors (ipmb_last_error_code): as ipmb_message_object_retrieve_try.
Object ipmb_message_object_retrieve(Message *message,
                                    uintptr_t index);

/// Takes an object out of a message; those behind it move up. After a failure `*obj` is unchanged.
///
/// Ownership: `*obj` is the caller's, to be closed with ipmb_object_drop or the system's close. One thread at a time may
/// use a message; does not block. Errors: ERROR_CODE_INVALID_ARGUMENT, ERROR_CODE_OUT_OF_RANGE.
ErrorCode ipmb_message_object_retrieve_try(Message *message,
                                           size_t index,
                                           Object *obj);

/// An object of a message, which stays the message's. 0 after a failure.
///
/// Ownership: the object is borrowed: do not close it; it is valid until it is taken out or the message is sent or
/// dropped. Thread-safe as long as nobody changes the message; does not block. Errors (ipmb_last_error_code): as
/// ipmb_message_object_get_try.
Object ipmb_message_object_get(const Message *message,
                               uintptr_t index);

/// An object of a message, which stays the message's. After a failure `*obj` is unchanged.
///
/// Ownership: `*obj` is borrowed: do not close it; it is valid until it is taken out or the message is sent or dropped.
/// Thread-safe as long as nobody changes the message; does not block. Errors: ERROR_CODE_INVALID_ARGUMENT,
/// ERROR_CODE_OUT_OF_RANGE.
ErrorCode ipmb_message_object_get_try(const Message *message,
                                      size_t index,
                                      Object *obj);

/// Adds a memory region behind the others. After a failure it stays the caller's;
/// ipmb_message_memory_region_append_try tells it directly.
///
/// Takes ownership of the region; the first attempt to send the message unmaps it, even one that fails. One thread at a
/// time may use a message; does not block. Errors (ipmb_last_error_code): as ipmb_message_memory_region_append_try.
void ipmb_message_memory_region_append(Message *message,
                                       MemoryRegion region);

/// Adds a memory region behind the others. That there are at most 253 is checked when the message is sent.
///
/// Takes ownership of the region, and the first attempt to send the message unmaps it, even one that fails. If this here
/// fails, the region stays the caller's. One thread at a time may use a message; does not block. Errors: ERROR_CODE_INVALID_ARGUMENT.
ErrorCode ipmb_message_memory_region_append_try(Message *message,
                                                MemoryRegion region);

/// How many memory regions a message has, into `*count`.
///
/// Thread-safe as long as nobody changes or drops the message; does not block. Errors: ERROR_CODE_INVALID_ARGUMENT.
ErrorCode ipmb_message_memory_region_count(const Message *message,
                                           size_t *count);

/// Takes a memory region out of a message; those behind it move up. NULL after a failure.
///
/// Ownership: the region is the caller's, to be freed with ipmb_memory_region_drop. One thread at a time may use a
/// message; does not block. Errors (ipmb_last_error_code): as ipmb_message_memory_region_retrieve_try.
MemoryRegion ipmb_message_memory_region_retrieve(Message *message,
                                                 uintptr_t index);

/// Takes a memory region out of a message; those behind it move up. After a failure `*region` is unchanged.
///
/// Ownership: `*region` is the caller's, to be freed with ipmb_memory_region_drop. One thread at a time may use a
/// message; does not block. Errors: ERROR_CODE_INVALID_ARGUMENT, ERROR_CODE_OUT_OF_RANGE.
ErrorCode ipmb_message_memory_region_retrieve_try(Message *message,
                                                  size_t index,
                                                  MemoryRegion *region);

/// A memory region of a message, which stays the message's. NULL after a failure.
///
/// Ownership: the region is borrowed: do not drop it and do not put it into a message; it is valid until it is taken out,
/// or the message is dropped or an attempt made to send it. One thread at a time may use a message; does not block.
/// Errors (ipmb_last_error_code): as ipmb_message_memory_region_get_try.
MemoryRegion ipmb_message_memory_region_get(Message *message,
                                            uintptr_t index);

/// A memory region of a message, which stays the message's. After a failure `*region` is unchanged.
///
/// Ownership: `*region` is borrowed: do not drop it and do not put it into a message; it is valid until it is taken out,
/// or the message is dropped or an attempt made to send it. One thread at a time may use a message; does not block.
/// Errors: ERROR_CODE_INVALID_ARGUMENT, ERROR_CODE_OUT_OF_RANGE.
ErrorCode ipmb_message_memory_region_get_try(Message *message,
                                             size_t index,
                                             MemoryRegion *region);

/// The endpoints that a multicast did not reach before ipmb_try_send or ipmb_send_timeout handed it back: their numbers,
/// and how many. Sending the message again goes to those of them that are still members, and to nobody else. None for a
/// message that was not handed back.
///
/// Ownership: the numbers stay the message's and are valid until an attempt is made to send it or it is dropped.
/// Thread-safe as long as nobody does; does not block. Errors: ERROR_CODE_INVALID_ARGUMENT.
ErrorCode ipmb_message_unreached(const Message *message,
                                 const uint64_t **endpoints,
                                 size_t *count);

/// Settings with all defaults.
///
/// Ownership: the caller frees them with ipmb_settings_drop. Thread-safe; does not block; cannot fail.
Settings ipmb_settings(void);

/// Frees settings. NULL is fine. Endpoints that joined with them keep a copy.
///
/// Takes ownership of the settings. Thread-safe; does not block. Errors (ipmb_last_error_code):
/// ERROR_CODE_INVALID_ARGUMENT.
void ipmb_settings_drop(Settings settings);

/// The largest payload that this endpoint sends or receives, in bytes (1 GiB). To send a larger one is
/// ERROR_CODE_TOO_LARGE. One that comes from an endpoint with a higher limit is skipped: ERROR_CODE_DECODE.
///
/// One thread at a time may use settings; does not block. Errors: ERROR_CODE_INVALID_ARGUMENT.
ErrorCode ipmb_settings_max_payload(Settings *settings, size_t bytes);

/// The largest memory region that this endpoint receives, in bytes (64 GiB). A message with one that is larger is refused
/// with ERROR_CODE_TOO_LARGE.
///
/// One thread at a time may use settings; does not block. Errors: ERROR_CODE_INVALID_ARGUMENT.
ErrorCode ipmb_settings_max_region(Settings *settings,
                                   uint64_t bytes);

/// How many bytes a link of this endpoint to another holds before a send waits: a power of two from 64 KiB to 64 MiB
/// (1 MiB). A value that is none makes the join fail.
///
/// One thread at a time may use settings; does not block. Errors: ERROR_CODE_INVALID_ARGUMENT.
ErrorCode ipmb_settings_link_capacity(Settings *settings,
                                      size_t bytes);

/// How many bytes of messages from this endpoint to itself wait at most (64 MiB). Over that, a send is ERROR_CODE_FULL.
///
/// One thread at a time may use settings; does not block. Errors: ERROR_CODE_INVALID_ARGUMENT.
ErrorCode ipmb_settings_self_queue(Settings *settings,
                                   size_t bytes);

/// For how many microseconds at most a receive watches for messages, and a send for space, before it sleeps; beside a large
/// message a receive up to 850 longer, a send up to 3400; 0: not at all; 150 by default. More than a second makes the join fail.
///
/// One thread at a time may use settings; does not block. Errors: ERROR_CODE_INVALID_ARGUMENT.
ErrorCode ipmb_settings_spin(Settings *settings,
                             uint32_t microseconds);

/// A link to another endpoint over which nothing went for this many milliseconds, or up to twice as long, is ended, and its
/// memory and descriptors are given back; the next message makes a new one. Less than 10 is 10; TIMEOUT_INFINITE is never;
/// 20 seconds by default.
///
/// One thread at a time may use settings; does not block. Errors: ERROR_CODE_INVALID_ARGUMENT.
ErrorCode ipmb_settings_idle_link(Settings *settings,
                                  uint32_t milliseconds);

/// Meet at an absolute path, of at most 100 bytes, instead of at the abstract name of the identifier. A path that no socket
/// can have makes the join fail, and on Windows any.
///
/// Ownership: `path` is copied. One thread at a time may use settings; does not block. Errors:
/// ERROR_CODE_INVALID_ARGUMENT, ERROR_CODE_INVALID_UTF8.
ErrorCode ipmb_settings_path(Settings *settings,
                             const char *path);

/// Join the bus of this user instead of one's own (the effective user). On Windows another user makes the join fail.
///
/// One thread at a time may use settings; does not block. Errors: ERROR_CODE_INVALID_ARGUMENT.
ErrorCode ipmb_settings_owner(Settings *settings,
                              uint32_t uid);

/// Let everybody on the machine join the bus, if this endpoint becomes its controller. Undoes what
/// ipmb_settings_allow_uid and ipmb_settings_allow_gid did. On Windows it makes the join fail.
///
/// One thread at a time may use settings; does not block. Errors: ERROR_CODE_INVALID_ARGUMENT.
ErrorCode ipmb_settings_allow_anyone(Settings *settings);

/// Let this user join the bus, too, besides the owner and root. On Windows it makes the join fail.
///
/// One thread at a time may use settings; does not block. Errors: ERROR_CODE_INVALID_ARGUMENT.
ErrorCode ipmb_settings_allow_uid(Settings *settings, uint32_t uid);

/// Let the members of this group join the bus, too, besides the owner and root. On Windows it makes the join fail.
///
/// One thread at a time may use settings; does not block. Errors: ERROR_CODE_INVALID_ARGUMENT.
ErrorCode ipmb_settings_allow_gid(Settings *settings,
                                  uint32_t gid);

/// Joins a bus, or starts it: the first endpoint becomes its controller. A `p_sender` or `p_receiver` that is NULL drops
/// that half at once. After a failure nothing is written.
///
/// Ownership: `options` and what it points to stay the caller's; the halves are the caller's, to be freed with
/// ipmb_sender_drop and ipmb_receiver_drop. Thread-safe. Blocks until the endpoint is a member, at most for `timeout`
/// milliseconds (TIMEOUT_INFINITE: for ever). Errors: ERROR_CODE_INVALID_ARGUMENT, ERROR_CODE_INVALID_UTF8,
/// ERROR_CODE_TIMEOUT, ERROR_CODE_VERSION_MISMATCH, ERROR_CODE_TOKEN_MISMATCH, ERROR_CODE_PERMISSION_DENIED,
/// ERROR_CODE_CONTROLLER_STOPPED, ERROR_CODE_NAME_SQUATTED, ERROR_CODE_BUS_FULL, ERROR_CODE_UNSUPPORTED_SYSTEM,
/// ERROR_CODE_EXHAUSTED, ERROR_CODE_SYSTEM.
ErrorCode ipmb_join(struct Options options,
                    uint32_t timeout,
                    Sender *p_sender,
                    Receiver *p_receiver);

/// As ipmb_join, with settings; NULL: the defaults.
///
/// Ownership: `settings` stay the caller's. Otherwise, and for threads, blocking and errors: as ipmb_join.
ErrorCode ipmb_join_with(struct Options options,
                         const Settings *settings,
                         uint32_t timeout,
                         Sender *p_sender,
                         Receiver *p_receiver);

/// Frees a sender. The endpoint leaves the bus with its last sender and its receiver. NULL is fine.
///
/// Takes ownership of the sender. Thread-safe. If it is the endpoint's last half, blocks until it has left in good order,
/// at most for a second; the process's last endpoint for a second more, if a close is slow. Errors (ipmb_last_error_code):
/// ERROR_CODE_INVALID_ARGUMENT.
void ipmb_sender_drop(Sender sender);

/// One more sender of the same endpoint, which shares its order of messages. After a failure `*cloned` is unchanged.
///
/// Ownership: `*cloned` is the caller's, to be freed with ipmb_sender_drop. Thread-safe; does not block. Errors:
/// ERROR_CODE_INVALID_ARGUMENT.
ErrorCode ipmb_sender_clone(const Sender *sender,
                            Sender *cloned);

/// Sends a message, and waits for space as long as it takes. Success means that the message is with its receivers, or
/// waits for one (ttl), or that nobody matched a selector without a ttl.
///
/// Takes ownership of the message, also when it fails, unless `message` is a handle of another kind. Thread-safe. Blocks
/// while a receiver has no space; two endpoints that each wait here for the other, and receive on the same thread, wait
/// for ever: use ipmb_try_send there. Errors: as ipmb_send_timeout, without ERROR_CODE_TIMEOUT.
ErrorCode ipmb_send(Sender *sender,
                    Message message);

/// Sends a message if that is possible at once. After a failure the message can be sent again; its regions have been
/// unmapped. A multicast then goes to those that were not reached (ipmb_message_unreached).
///
/// Ownership: on success the message is taken and `*message` is NULL; after a failure it stays the caller's. Thread-safe;
/// does not block. Errors: ERROR_CODE_FULL, ERROR_CODE_SETTLING, and as ipmb_send_timeout.
ErrorCode ipmb_try_send(const Sender *sender,
                        Message *message);

/// Sends a message, and waits for space at most for `timeout` milliseconds (TIMEOUT_INFINITE: for ever). After a failure
/// the message can be sent again; its regions have been unmapped. A multicast then goes to those that were not reached
/// (ipmb_message_unreached).
///
/// Ownership: on success the message is taken and `*message` is NULL; after a failure it stays the caller's. Thread-safe.
/// Blocks while a receiver has no space. Errors: ERROR_CODE_INVALID_ARGUMENT, ERROR_CODE_TIMEOUT,
/// ERROR_CODE_CONTROLLER_STOPPED, ERROR_CODE_FULL (the endpoint's queue to itself), ERROR_CODE_TOO_LARGE,
/// ERROR_CODE_LIMIT, ERROR_CODE_EXHAUSTED, ERROR_CODE_LEFT, ERROR_CODE_FORKED, ERROR_CODE_SYSTEM. None says that a
/// bus was founded anew with another protocol, token or access rules: a member keeps its links and looks for another
/// controller.
ErrorCode ipmb_send_timeout(const Sender *sender,
                            Message *message,
                            uint32_t timeout);

/// Leaves the bus in good order: messages that wait for somebody to match and, if it is here, the controller's role are
/// handed over. Afterwards both halves fail with ERROR_CODE_LEFT; they still have to be dropped.
///
/// Thread-safe. Blocks at most for `timeout` milliseconds (TIMEOUT_INFINITE: for ever). Errors:
/// ERROR_CODE_INVALID_ARGUMENT, ERROR_CODE_TIMEOUT if nobody took over in time, ERROR_CODE_CONTROLLER_STOPPED if that is
/// why, ERROR_CODE_FORKED.
ErrorCode ipmb_leave(const Sender *sender,
                     uint32_t timeout);

/// Frees a receiver: the endpoint matches no selector any more. It leaves the bus with its last sender and its receiver.
/// NULL is fine. Do not use its descriptor any more.
///
/// Takes ownership of the receiver. Thread-safe. Blocks until others know, or the endpoint has left in good order, at
/// most for a second; the process's last endpoint for a second more, if a close is slow. Errors (ipmb_last_error_code):
/// ERROR_CODE_INVALID_ARGUMENT.
void ipmb_receiver_drop(Receiver receiver);

/// Receives the next message. Messages of one sender come in its order; those whose payload is not the type that all
/// languages share (bytes with a format) are skipped. After a failure `*p_message` is NULL.
///
/// Ownership: `*p_message` is the caller's, to be freed with ipmb_message_drop. Thread-safe. Blocks until there is a
/// message, at most for `timeout` milliseconds (TIMEOUT_INFINITE: for ever). Errors: ERROR_CODE_INVALID_ARGUMENT,
/// ERROR_CODE_TIMEOUT, ERROR_CODE_LEFT, ERROR_CODE_FORKED, ERROR_CODE_SYSTEM; ERROR_CODE_DECODE,
/// ERROR_CODE_NOT_A_REGION and ERROR_CODE_TOO_LARGE: the message is gone, the next one can be received;
/// ERROR_CODE_EXHAUSTED: the message is still first in line. None says that a bus was founded anew with another protocol,
/// token or access rules: a member keeps its links and looks for another controller.
ErrorCode ipmb_recv(Receiver *receiver,
                    Message *p_message,
                    uint32_t timeout);

/// Receives a message if there is one now. After ERROR_CODE_EMPTY the descriptor of ipmb_receiver_fd becomes readable when
/// the next one is there. After a failure `*p_message` is NULL.
///
/// Ownership: `*p_message` is the caller's, to be freed with ipmb_message_drop. Thread-safe; does not block. Errors:
/// ERROR_CODE_EMPTY, and as ipmb_recv without ERROR_CODE_TIMEOUT.
ErrorCode ipmb_try_recv(const Receiver *receiver,
                        Message *p_message);

/// A descriptor to wait for with poll, epoll or an event loop, into `*fd`. It is readable when there may be a message:
/// receive with ipmb_try_recv until that returns ERROR_CODE_EMPTY, then wait. Do nothing else with it. On Windows it is no
/// descriptor but the lower 32 bits of a HANDLE, which are all that count: wait for `(HANDLE)(intptr_t)fd` with
/// WaitForSingleObject and the like.
///
/// Ownership: the descriptor stays the receiver's and is valid until it is dropped; do not close it. Thread-safe; does
/// not block. Errors: ERROR_CODE_INVALID_ARGUMENT.
ErrorCode ipmb_receiver_fd(const Receiver *receiver,
                           int *fd);

/// What an endpoint has done since it joined, into `*stats`: its first `size` bytes. Pass `sizeof(Stats)`; fields that this
/// library does not know yet are 0.
///
/// Ownership: `*stats` is filled. Thread-safe; blocks while another thread puts a message into a link, or receives or
/// watches for messages. Errors: ERROR_CODE_INVALID_ARGUMENT.
ErrorCode ipmb_sender_stats(const Sender *sender,
                            struct Stats *stats,
                            size_t size);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#ifdef __cplusplus
}  // namespace ipmb_ffi
#endif  // __cplusplus
