// A program as it was written for the C interface of older versions: nothing in it is newer than they are. It sends one
// message with a region to "a" until it gets one back, then shows what it got. older_ffi BUS

#include <chrono>
#include <iostream>
#include <thread>
#include "ipmb_ffi.h"

int main(int, char** argv) {
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
        auto r = ipmb_ffi::ipmb_send(&sender, message);
        if (r != 0) {
            std::cout << "SAY send failed " << r << std::endl;
        }
        ipmb_ffi::ipmb_memory_registry_drop(registry);
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

    auto region = ipmb_ffi::ipmb_message_memory_region_retrieve(&message, 0);
    intptr_t real_size = 0;
    auto region_ptr = ipmb_ffi::ipmb_memory_region_map(&region, 0, 32, &real_size);
    ipmb_ffi::MemoryRegion cloned = nullptr;
    ipmb_ffi::ipmb_memory_region_clone(&region, &cloned);
    std::cout << "SAY " << format << " " << size << " " << int(ptr[0]) << " " << real_size << " "
              << int(region_ptr[31]) << " " << (ipmb_ffi::ipmb_memory_region_ref_count(&cloned) >= 2) << std::endl;

    ipmb_ffi::ipmb_memory_region_drop(cloned);
    ipmb_ffi::ipmb_memory_region_drop(region);
    ipmb_ffi::ipmb_message_drop(message);
    t.join();
    ipmb_ffi::ipmb_label_drop(label);
    ipmb_ffi::ipmb_receiver_drop(receiver);
    return 0;
}
