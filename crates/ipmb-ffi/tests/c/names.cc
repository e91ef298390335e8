// The C interface as C++ sees it, and the shapes of the C++ one. Nothing runs.

#include <ipmb.h>

#include <cstdint>
#include <functional>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>

#include "names.h"

namespace shapes {

using std::declval;
using std::is_constructible;
using std::is_same;
using std::tuple;

using ipmb::Error;
using ipmb_ffi::Object;

// What a call on a value of this type returns.
#define RETURNS(expression, ...) static_assert(is_same<decltype(expression), __VA_ARGS__>::value, #expression)

template <typename T>
T& the() {
  return declval<T&>();
}

template <typename T>
constexpr bool move_only() {
  return std::is_nothrow_move_constructible<T>::value && std::is_nothrow_move_assignable<T>::value &&
         !std::is_copy_constructible<T>::value && !std::is_copy_assignable<T>::value;
}
static_assert(move_only<ipmb::Label>() && move_only<ipmb::LabelOp>(), "move-only");
static_assert(move_only<ipmb::MemoryRegion>() && move_only<ipmb::MemoryRegistry>(), "move-only");
static_assert(move_only<ipmb::Message>(), "move-only");
static_assert(move_only<ipmb::Sender>() && move_only<ipmb::Receiver>(), "move-only");

static_assert(static_cast<int>(Error::kSuccess) == 0, "positive");
static_assert(static_cast<int>(Error::kUnknown) == 1, "positive");
static_assert(static_cast<int>(Error::kTimeout) == 2, "positive");
static_assert(static_cast<int>(Error::kDecode) == 3, "positive");
static_assert(static_cast<int>(Error::kVersionMismatch) == 4, "positive");
static_assert(static_cast<int>(Error::kTokenMismatch) == 5, "positive");
static_assert(static_cast<int>(Error::kPermissionDenied) == 6, "positive");

RETURNS(ipmb::join(the<ipmb::Options>(), uint32_t{}), tuple<ipmb::Sender, ipmb::Receiver, Error>);
RETURNS(the<ipmb::Sender>().send(declval<ipmb::Message>()), Error);
RETURNS(the<ipmb::Receiver>().recv(uint32_t{}), tuple<ipmb::Message, Error>);

static_assert(is_constructible<ipmb::Options, const char*, ipmb::Label, const char*, bool>::value, "");
static_assert(is_constructible<ipmb::Selector, ipmb::LabelOp, ipmb_ffi::SelectorMode, uint32_t>::value, "");
static_assert(is_constructible<ipmb::Message, ipmb::Selector&, uint16_t, const uint8_t*, uint32_t>::value, "");
static_assert(is_constructible<ipmb::LabelOp, bool>::value && is_constructible<ipmb::LabelOp, std::string>::value, "");

RETURNS(the<ipmb::Message>().bytes_data(), tuple<uint16_t, const uint8_t*, uint32_t, Error>);
RETURNS(the<ipmb::Message>().object_append(Object{}), Error);
RETURNS(the<ipmb::Message>().object_retrieve(uintptr_t{}), tuple<Object, Error>);
RETURNS(the<ipmb::Message>().object_get(uintptr_t{}), tuple<Object, Error>);
RETURNS(the<ipmb::Message>().memory_region_append(declval<ipmb::MemoryRegion>()), Error);
RETURNS(the<ipmb::Message>().memory_region_retrieve(uintptr_t{}), tuple<ipmb::MemoryRegion, Error>);

RETURNS(ipmb::MemoryRegion::create(uintptr_t{}), tuple<ipmb::MemoryRegion, Error>);
RETURNS(the<ipmb::MemoryRegion>().map(uintptr_t{}, intptr_t{}), tuple<uint8_t*, intptr_t, Error>);
RETURNS(the<ipmb::MemoryRegion>().ref_count(), tuple<uint32_t, Error>);
RETURNS(the<ipmb::MemoryRegion>().clone(), tuple<ipmb::MemoryRegion, Error>);

RETURNS(the<ipmb::MemoryRegistry>().alloc(uintptr_t{}, declval<const std::string*>()),
        tuple<ipmb::MemoryRegion, Error>);
RETURNS(the<ipmb::MemoryRegistry>().alloc_with_free(uintptr_t{}, declval<const std::string*>(),
                                                    declval<std::function<void()>>()),
        tuple<ipmb::MemoryRegion, Error>);
RETURNS(the<ipmb::MemoryRegistry>().maintain(), Error);

RETURNS(the<ipmb::LabelOp>().op_not(), void);
RETURNS(the<ipmb::LabelOp>().op_and(declval<ipmb::LabelOp>()), void);
RETURNS(the<ipmb::LabelOp>().op_or(declval<ipmb::LabelOp>()), void);
RETURNS(the<ipmb::Version>().major, uint8_t);
RETURNS(the<ipmb::Version>().pre, std::string);

}  // namespace shapes
