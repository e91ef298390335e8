// Sends a message to earth every second, for ever: moon_cpp [BUS]. The earth may be earth_cpp, earth_c or the Rust example
// bytes_earth.

#include <ipmb.h>

#include <chrono>
#include <iostream>
#include <string>
#include <thread>

int main(int argc, char** argv) {
  const ipmb::Options options(argc > 1 ? argv[1] : "com.solar", ipmb::Label{"moon"}, "", true);
  ipmb::Sender sender;
  ipmb::Receiver receiver;
  ipmb::Error error;
  std::tie(sender, receiver, error) = ipmb::join(options, ipmb_ffi::TIMEOUT_INFINITE);

  const ipmb::Selector earth("earth", ipmb_ffi::SelectorMode::kUnicast, 0);
  const std::string text = "hello world";
  while (error == ipmb::Error::kSuccess) {
    error = sender.send(ipmb::Message(earth, 0, reinterpret_cast<const uint8_t*>(text.data()),
                                      static_cast<uint32_t>(text.size())));
    std::this_thread::sleep_for(std::chrono::seconds(1));
  }
  std::cerr << ipmb::last_error() << "\n";
  return 1;
}
