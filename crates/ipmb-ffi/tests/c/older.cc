// A program as it was written for the C++ interface of older versions: nothing in it is newer than they are. It does what
// older_ffi.cc does. older BUS

#include <fcntl.h>
#include <unistd.h>
#include <chrono>
#include <iostream>
#include <thread>
#include "ipmb.h"

int main(int, char** argv) {
    ipmb::Version version;
    std::cout << +version.major << "." << +version.minor << "." << +version.patch << version.pre << "\n";

    ipmb::Label label {"cc"};
    label.append("older");
    ipmb::Options options(argv[1], std::move(label), "", true);

    ipmb::Sender sender;
    ipmb::Receiver receiver;
    ipmb::Error err;
    std::tie(sender, receiver, err) = ipmb::join(options, ipmb_ffi::TIMEOUT_INFINITE);
    if (err != ipmb::Error::kSuccess) {
        return -1;
    }
    std::cout << "SAY joined" << std::endl;

    std::thread t([sender = std::move(sender)]() mutable {
        ipmb::MemoryRegistry registry;
        ipmb::LabelOp op("a");
        ipmb::LabelOp right("b");
        right.op_not();
        op.op_and(std::move(right));
        op.op_or(ipmb::LabelOp(false));
        ipmb::Selector selector(std::move(op), ipmb_ffi::SelectorMode::kUnicast, 60000);

        const uint8_t buffer[5] {0, 1, 2, 3, 4};
        ipmb::Message message(selector, 2, buffer, sizeof(buffer));

        ipmb::MemoryRegion region;
        ipmb::Error err;
        std::tie(region, err) = registry.alloc(64, nullptr);
        if (err != ipmb::Error::kSuccess) {
            return;
        }
        message.memory_region_append(std::move(region));
        int freed = 0;
        const std::string tag = "tag";
        std::tie(region, err) = registry.alloc_with_free(64, &tag, [&freed] { freed++; });
        if (err != ipmb::Error::kSuccess || !region.valid()) {
            return;
        }
        region = ipmb::MemoryRegion();
        registry.maintain();
        if (freed != 1) {
            std::cout << "SAY free was called " << freed << " times" << std::endl;
        }
        message.object_append(static_cast<ipmb_ffi::Object>(dup(1)));
        err = sender.send(std::move(message));
        if (err != ipmb::Error::kSuccess) {
            std::cout << "SAY send failed" << std::endl;
        }
        registry.maintain();
    });

    ipmb::Message message;
    std::tie(message, err) = receiver.recv(ipmb_ffi::TIMEOUT_INFINITE);
    if (err != ipmb::Error::kSuccess) {
        return -1;
    }
    uint16_t format;
    const uint8_t* ptr;
    uint32_t size;
    std::tie(format, ptr, size, err) = message.bytes_data();

    ipmb_ffi::Object borrowed, object;
    std::tie(borrowed, err) = message.object_get(0);
    std::tie(object, err) = message.object_retrieve(0);
    bool open = err == ipmb::Error::kSuccess && object == borrowed && fcntl(static_cast<int>(object), F_GETFD) >= 0;
    ipmb_ffi::ipmb_object_drop(object);

    ipmb::MemoryRegion region;
    std::tie(region, err) = message.memory_region_retrieve(0);
    if (err != ipmb::Error::kSuccess) {
        return -1;
    }
    uint8_t* region_ptr;
    intptr_t region_size;
    std::tie(region_ptr, region_size, err) = region.map(0, 32);
    auto cloned = region.clone();
    uint32_t count;
    std::tie(count, err) = std::get<0>(cloned).ref_count();
    std::cout << "SAY " << format << " " << size << " " << int(ptr[0]) << " " << region_size << " "
              << int(region_ptr[31]) << " " << (count >= 2) << " " << open << std::endl;
    t.join();
    return 0;
}
