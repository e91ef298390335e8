// The names, arguments and values of the C interface that existing programs rely on, as C and C++ see them. A change of one of
// them does not compile.

#pragma once

#include <ipmb_ffi.h>

#ifdef __cplusplus
#include <type_traits>
using namespace ipmb_ffi;
#define HOLDS(condition) static_assert(condition, #condition)
#define IS(function, ...) static_assert(std::is_same<decltype(&function), __VA_ARGS__>::value, #function)
#define MODE(name) static_cast<int32_t>(SelectorMode::name)
#else
#define HOLDS(condition) _Static_assert(condition, #condition)
#define IS(function, ...) _Static_assert(_Generic(&function, __VA_ARGS__: 1, default: 0), #function)
#define MODE(name) name
#endif

IS(ipmb_version, void (*)(uint8_t *, uint8_t *, uint8_t *));
IS(ipmb_version_pre, RString (*)(void));
IS(ipmb_rstring_data, void (*)(const RString *, const char **, uintptr_t *));
IS(ipmb_rstring_drop, void (*)(RString));

IS(ipmb_join, ErrorCode (*)(Options, uint32_t, Sender *, Receiver *));
IS(ipmb_send, ErrorCode (*)(Sender *, Message));
IS(ipmb_recv, ErrorCode (*)(Receiver *, Message *, uint32_t));
IS(ipmb_sender_drop, void (*)(Sender));
IS(ipmb_receiver_drop, void (*)(Receiver));

IS(ipmb_message, Message (*)(Selector, uint16_t, const uint8_t *, uint32_t));
IS(ipmb_message_drop, void (*)(Message));
IS(ipmb_message_bytes_data, void (*)(const Message *, uint16_t *, const uint8_t **, uint32_t *));
IS(ipmb_message_object_append, void (*)(Message *, Object));
IS(ipmb_message_object_retrieve, Object (*)(Message *, uintptr_t));
IS(ipmb_message_object_get, Object (*)(const Message *, uintptr_t));
IS(ipmb_object_drop, void (*)(Object));
IS(ipmb_message_memory_region_append, void (*)(Message *, MemoryRegion));
IS(ipmb_message_memory_region_retrieve, MemoryRegion (*)(Message *, uintptr_t));
IS(ipmb_message_memory_region_get, MemoryRegion (*)(Message *, uintptr_t));

IS(ipmb_memory_region, ErrorCode (*)(uintptr_t, MemoryRegion *));
IS(ipmb_memory_region_drop, void (*)(MemoryRegion));
IS(ipmb_memory_region_map, uint8_t *(*)(MemoryRegion *, uintptr_t, intptr_t, intptr_t *));
IS(ipmb_memory_region_ref_count, uint32_t (*)(const MemoryRegion *));
IS(ipmb_memory_region_clone, ErrorCode (*)(const MemoryRegion *, MemoryRegion *));

IS(ipmb_memory_registry, MemoryRegistry (*)(void));
IS(ipmb_memory_registry_drop, void (*)(MemoryRegistry));
IS(ipmb_memory_registry_alloc, ErrorCode (*)(MemoryRegistry *, uintptr_t, const char *, MemoryRegion *));
IS(ipmb_memory_registry_alloc_with_free,
   ErrorCode (*)(MemoryRegistry *, uintptr_t, const char *, void *, void (*)(void *), MemoryRegion *));
IS(ipmb_memory_registry_maintain, void (*)(MemoryRegistry *));

IS(ipmb_label, Label (*)(void));
IS(ipmb_label_drop, void (*)(Label));
IS(ipmb_label_insert, void (*)(Label *, const char *));
IS(ipmb_label_op_bool, LabelOp (*)(bool));
IS(ipmb_label_op_leaf, LabelOp (*)(const char *));
IS(ipmb_label_op_not, LabelOp (*)(LabelOp));
IS(ipmb_label_op_and, LabelOp (*)(LabelOp, LabelOp));
IS(ipmb_label_op_or, LabelOp (*)(LabelOp, LabelOp));
IS(ipmb_label_op_drop, void (*)(LabelOp));

HOLDS(TIMEOUT_INFINITE == UINT32_MAX);
HOLDS(ERROR_CODE_SUCCESS == 0);
HOLDS(ERROR_CODE_UNKNOWN == -1);
HOLDS(ERROR_CODE_TIMEOUT == -2);
HOLDS(ERROR_CODE_DECODE == -3);
HOLDS(ERROR_CODE_VERSION_MISMATCH == -4);
HOLDS(ERROR_CODE_TOKEN_MISMATCH == -5);
HOLDS(ERROR_CODE_PERMISSION_DENIED == -6);
HOLDS(MODE(kUnicast) == 0);
HOLDS(MODE(kMulticast) == 1);
HOLDS(sizeof(ErrorCode) == 4);
HOLDS(sizeof(SelectorMode) == 4);
HOLDS(sizeof(Object) == 8);
HOLDS(sizeof(Sender) == sizeof(void *));

// The fields, in the order in which programs write them.
HOLDS(offsetof(Options, identifier) == 0);
HOLDS(offsetof(Options, label) == sizeof(void *));
HOLDS(offsetof(Options, token) == 2 * sizeof(void *));
HOLDS(offsetof(Options, controller_affinity) == 3 * sizeof(void *));
HOLDS(offsetof(Selector, label_op) == 0);
HOLDS(offsetof(Selector, mode) == sizeof(void *));
HOLDS(offsetof(Selector, ttl) == sizeof(void *) + 4);
