// A program as it was written for the C interface of older versions: nothing in it is newer than they are. It sends one
// message with a region and an object to "a" and shows what comes back. older_ffi BUS

#include <fcntl.h>
#include <unistd.h>
#include <chrono>
#include <iostream>
#include <string>
#include <thread>
#include "ipmb_ffi.h"

int main(int, char** argv) {
    uint8_t major, minor, patch;
    ipmb_ffi::ipmb_version(&major, &minor, &patch);
    auto pre = ipmb_ffi::ipmb_version_pre();
    const char* pre_ptr;
    uintptr_t pre_size;
    ipmb_ffi::ipmb_rstring_data(&pre, &pre_ptr, &pre_size);
    std::cout << +major << "." << +minor << "." << +patch << std::string(pre_ptr, pre_size) << "\n";
    ipmb_ffi::ipmb_rstring_drop(pre);

    auto label = ipmb_ffi::ipmb_label();
    ipmb_ffi::ipmb_label_insert(&label, "cc");

    ipmb_ffi::Options options;
    options.identifier = argv[1];
    options.label = &label;
    options.token = "";
    options.controller_affinity = true;

    void* sender = nullptr;
    void* receiver = nullptr;
    auto r = ipmb_ffi::ipmb_join(options, ipmb_ffi::TIMEOUT_INFINITE, &sender, &receiver);
    if (r != ipmb_ffi::ERROR_CODE_SUCCESS) {
        std::cout << "SAY join failed " << r << std::endl;
        return -1;
    }
    std::cout << "SAY joined" << std::endl;

    std::thread t([sender]() mutable {
        auto left = ipmb_ffi::ipmb_label_op_leaf("a");
        auto right = ipmb_ffi::ipmb_label_op_not(ipmb_ffi::ipmb_label_op_leaf("b"));
        auto op = ipmb_ffi::ipmb_label_op_and(left, right);
        op = ipmb_ffi::ipmb_label_op_or(op, ipmb_ffi::ipmb_label_op_bool(false));

        ipmb_ffi::Selector selector;
        selector.label_op = &op;
        selector.mode = ipmb_ffi::SelectorMode::kUnicast;
        selector.ttl = 60000;

        const uint8_t buffer[5] {0, 1, 2, 3, 4};
        auto message = ipmb_ffi::ipmb_message(selector, 2, buffer, sizeof(buffer));

        auto registry = ipmb_ffi::ipmb_memory_registry();
        ipmb_ffi::MemoryRegion region = nullptr;
        if (ipmb_ffi::ipmb_memory_registry_alloc(&registry, 64, nullptr, &region) == 0) {
            ipmb_ffi::ipmb_message_memory_region_append(&message, region);
        }
        int freed = 0;
        if (ipmb_ffi::ipmb_memory_registry_alloc_with_free(
                &registry, 64, "tag", &freed, [](void* context) { ++*static_cast<int*>(context); }, &region) == 0) {
            ipmb_ffi::ipmb_memory_region_drop(region);
        }
        ipmb_ffi::ipmb_memory_registry_maintain(&registry);
        ipmb_ffi::ipmb_message_object_append(&message, static_cast<ipmb_ffi::Object>(dup(1)));
        auto r = ipmb_ffi::ipmb_send(&sender, message);
        if (r != 0) {
            std::cout << "SAY send failed " << r << std::endl;
        }
        ipmb_ffi::ipmb_memory_registry_drop(registry);
        if (freed != 1) {
            std::cout << "SAY free was called " << freed << " times" << std::endl;
        }
        ipmb_ffi::ipmb_label_op_drop(op);
        ipmb_ffi::ipmb_sender_drop(sender);
    });

    ipmb_ffi::Message message;
    r = ipmb_ffi::ipmb_recv(&receiver, &message, ipmb_ffi::TIMEOUT_INFINITE);
    if (r != 0) {
        return -1;
    }
    uint16_t format;
    const uint8_t* ptr;
    uint32_t size;
    ipmb_ffi::ipmb_message_bytes_data(&message, &format, &ptr, &size);

    auto borrowed = ipmb_ffi::ipmb_message_object_get(&message, 0);
    auto object = ipmb_ffi::ipmb_message_object_retrieve(&message, 0);
    bool open = object == borrowed && fcntl(static_cast<int>(object), F_GETFD) >= 0;
    ipmb_ffi::ipmb_object_drop(object);
    open = open && fcntl(static_cast<int>(object), F_GETFD) < 0;

    bool inside = ipmb_ffi::ipmb_message_memory_region_get(&message, 0) != nullptr;
    auto region = ipmb_ffi::ipmb_message_memory_region_retrieve(&message, 0);
    intptr_t real_size = 0;
    auto region_ptr = ipmb_ffi::ipmb_memory_region_map(&region, 0, 32, &real_size);
    ipmb_ffi::MemoryRegion cloned = nullptr;
    ipmb_ffi::ipmb_memory_region_clone(&region, &cloned);
    std::cout << "SAY " << format << " " << size << " " << int(ptr[0]) << " " << real_size << " "
              << int(region_ptr[31]) << " " << (ipmb_ffi::ipmb_memory_region_ref_count(&cloned) >= 2) << " "
              << (open && inside) << std::endl;

    ipmb_ffi::ipmb_memory_region_drop(cloned);
    ipmb_ffi::ipmb_memory_region_drop(region);
    ipmb_ffi::ipmb_message_drop(message);
    t.join();
    ipmb_ffi::ipmb_label_drop(label);
    ipmb_ffi::ipmb_receiver_drop(receiver);
    return 0;
}
