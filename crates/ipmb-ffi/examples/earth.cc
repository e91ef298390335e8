// Receives what a moon sends, for ever: earth_cpp [BUS]. The moon may be moon_cpp, moon_c or the Rust example bytes_moon.

#include <ipmb.h>

#include <iostream>
#include <string>

int main(int argc, char** argv) {
  const ipmb::Options options(argc > 1 ? argv[1] : "com.solar", ipmb::Label{"earth"}, "", true);
  ipmb::Sender sender;
  ipmb::Receiver receiver;
  ipmb::Error error;
  std::tie(sender, receiver, error) = ipmb::join(options, ipmb_ffi::TIMEOUT_INFINITE);

  while (error == ipmb::Error::kSuccess) {
    ipmb::Message message;
    std::tie(message, error) = receiver.recv(ipmb_ffi::TIMEOUT_INFINITE);
    if (error == ipmb::Error::kSuccess) {
      const auto data = message.data();
      std::cout << "received: "
                << std::string(reinterpret_cast<const char*>(std::get<1>(data)), std::get<2>(data))
                << std::endl;
    }
  }
  std::cerr << ipmb::last_error() << "\n";
  return 1;
}
