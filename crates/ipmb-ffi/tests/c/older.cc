// A program as it was written for the C++ interface of older versions: nothing in it is newer than they are. It does what
// older_ffi.cc does. older BUS

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
              << int(region_ptr[31]) << " " << (count >= 2) << std::endl;
    t.join();
    return 0;
}
