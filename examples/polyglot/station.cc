// The station in C++: station_cpp BUS NEXT. It takes the letter, adds its line to the text, to the file and to the memory,
// and passes the letter on to whoever has the label NEXT.

#include <ipmb.h>
#include <unistd.h>

#include <algorithm>
#include <iostream>
#include <string>

constexpr uint32_t kPatience = 60000;

// Ends the program unless a call went well.
void need(bool well, const char* what) {
  if (!well) {
    std::cerr << "C++: " << what << ": " << ipmb::last_error() << std::endl;
    std::exit(1);
  }
}

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: station_cpp BUS NEXT\n";
    return 2;
  }
  const ipmb::Options options(argv[1], ipmb::Label{"cpp"}, "", false);
  ipmb::Sender sender;
  ipmb::Receiver receiver;
  ipmb::Error error;
  std::tie(sender, receiver, error) = ipmb::join(options, kPatience);
  need(error == ipmb::Error::kSuccess, "join");

  ipmb::Message letter;
  std::tie(letter, error) = receiver.recv(kPatience);
  need(error == ipmb::Error::kSuccess, "receive");
  const auto data = letter.data();
  std::string text(reinterpret_cast<const char*>(std::get<1>(data)), std::get<2>(data));
  std::cout << "C++    has got the letter with " << std::count(text.begin(), text.end(), '\n')
            << " lines and passes it to \"" << argv[2] << '"' << std::endl;

  const std::string line = "C++ was here, process " + std::to_string(getpid()) + "\n";
  text += line;
  // Kept until the next station has joined.
  const ipmb::Selector next(argv[2], ipmb_ffi::SelectorMode::kUnicast, kPatience);
  ipmb::Message passed(next, 0, reinterpret_cast<const uint8_t*>(text.data()),
                       static_cast<uint32_t>(text.size()));

  // The file: a descriptor of our own, until the message takes it over.
  ipmb_ffi::Object file;
  std::tie(file, error) = letter.object_retrieve(0);
  need(error == ipmb::Error::kSuccess, "no file");
  need(write(static_cast<int>(file), line.data(), line.size()) ==
           static_cast<ssize_t>(line.size()),
       "write to the file");
  need(passed.object_append(file) == ipmb::Error::kSuccess, "append the file");

  // The memory: the same bytes that all others see.
  ipmb::MemoryRegion memory;
  std::tie(memory, error) = letter.memory_region_retrieve(0);
  need(error == ipmb::Error::kSuccess, "no memory came with the letter");
  uint8_t* bytes;
  intptr_t room;
  std::tie(bytes, room, error) = memory.map(0, -1);
  need(error == ipmb::Error::kSuccess, "map");
  uint8_t* const end = std::find(bytes, bytes + room, 0);
  need(static_cast<std::size_t>(bytes + room - end) >= line.size(), "the memory is full");
  std::copy(line.begin(), line.end(), end);
  need(passed.memory_region_append(std::move(memory)) == ipmb::Error::kSuccess, "append the memory");

  need(sender.send(std::move(passed)) == ipmb::Error::kSuccess, "send");
  return 0;
}
