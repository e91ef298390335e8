// The C++ side of the tests between processes: peer_cpp ROLE BUS. `peer.c` plays the same roles in C.

#include <ipmb.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <string>
#include <type_traits>
#include <vector>

#include "check.h"

using ipmb::Error;
using ipmb::LabelOp;
using ipmb::Message;
using ipmb_ffi::SelectorMode;

static_assert(!std::is_copy_constructible<Message>::value, "move-only");
static_assert(!std::is_copy_assignable<ipmb::MemoryRegion>::value, "move-only");
static_assert(std::is_nothrow_move_constructible<ipmb::Sender>::value, "move-only");
static_assert(std::is_nothrow_move_assignable<ipmb::Receiver>::value, "move-only");
static_assert(sizeof(ipmb::Message) == sizeof(void*), "no more than the handle");

namespace {

constexpr uint32_t kSoon = 20000;

ipmb::Sender sender;
ipmb::Receiver receiver;

void join(const std::string& bus) {
  ipmb::Settings settings;
  CHECK(settings.link_capacity(65536) == Error::kSuccess);
  CHECK(settings.idle_link(60000) == Error::kSuccess);
  const ipmb::Options options(bus, ipmb::Label{"peer"}, "token", true);
  Error error;
  std::tie(sender, receiver, error) = ipmb::join(options, settings, kSoon);
  CHECK(error == Error::kSuccess && sender.valid() && receiver.valid());
  SAY("ready");
}

Message message_to(LabelOp op, SelectorMode mode, uint32_t ttl, const std::string& text) {
  const ipmb::Selector selector(std::move(op), mode, ttl);
  return Message(selector, 1, reinterpret_cast<const uint8_t*>(text.data()),
                 static_cast<uint32_t>(text.size()));
}

std::string text_of(const Message& message) {
  const auto data = message.data();
  CHECK(std::get<3>(data) == Error::kSuccess);
  return std::string(reinterpret_cast<const char*>(std::get<1>(data)), std::get<2>(data));
}

Message receive() {
  Message message;
  Error error;
  std::tie(message, error) = receiver.recv(kSoon);
  CHECK(error == Error::kSuccess);
  return message;
}

void echo() {
  for (;;) {
    Message message = receive();
    uint16_t format;
    const uint8_t* data;
    uint32_t size;
    Error error;
    std::tie(format, data, size, error) = message.bytes_data();
    CHECK(error == Error::kSuccess);
    if (format == 0xffff) {
      return;
    }
    std::vector<uint8_t> reversed(data, data + size);
    std::reverse(reversed.begin(), reversed.end());
    ipmb::Selector selector(LabelOp("test"), SelectorMode::kUnicast, 0);
    Message answer(selector, static_cast<uint16_t>(format + 1), reversed.data(), size);
    for (auto count = std::get<0>(message.object_count()); count > 0; count--) {
      CHECK(std::get<1>(message.object_get(0)) == Error::kSuccess);
      ipmb_ffi::Object object;
      std::tie(object, error) = message.object_retrieve(0);
      CHECK(error == Error::kSuccess && answer.object_append(object) == Error::kSuccess);
    }
    for (auto count = std::get<0>(message.memory_region_count()); count > 0; count--) {
      ipmb::MemoryRegion region;
      std::tie(region, error) = message.memory_region_retrieve(0);
      CHECK(error == Error::kSuccess);
      uint8_t* bytes;
      intptr_t mapped;
      std::tie(bytes, mapped, error) = region.map(0, -1);
      CHECK(error == Error::kSuccess && mapped > 0);
      bytes[0]++;
      CHECK(answer.memory_region_append(std::move(region)) == Error::kSuccess);
    }
    CHECK(sender.send(std::move(answer)) == Error::kSuccess);
  }
}

void full() {
  listen_once();
  std::vector<uint8_t> bytes(1000);
  uint32_t count = 0;
  Message message;
  Error error = Error::kSuccess;
  const ipmb::Selector selector("slow", SelectorMode::kUnicast, 0);
  while (error == Error::kSuccess) {
    memcpy(bytes.data(), &count, sizeof count);
    std::tie(message, error) = Message::create(selector, 1, bytes.data(), bytes.size());
    CHECK(error == Error::kSuccess);
    error = sender.try_send(message);
    CHECK(message.valid() == (error != Error::kSuccess));
    count += error == Error::kSuccess;
  }
  CHECK(error == Error::kFull);
  CHECK(sender.send_timeout(message, 30) == Error::kTimeout);
  CHECK(text_of(message) == std::string(bytes.begin(), bytes.end()));
  SAY("full %u", static_cast<unsigned>(count));
  CHECK(sender.send_timeout(message, kSoon) == Error::kSuccess && !message.valid());
  SAY("sent");
  listen_once();
}

void decode() {
  CHECK(std::get<1>(receiver.recv(kSoon)) == Error::kDecode);
  CHECK(std::get<0>(receive().data()) == 5);
  CHECK(std::get<0>(sender.stats()).skipped == 1);
  SAY("done");
  listen_once();
}

void selectors() {
  listen_once();
  LabelOp op("planet");
  LabelOp gas(std::string("gas"));
  gas.op_not();
  op.op_and(std::move(gas));
  CHECK(std::get<0>(op.validate(ipmb::Label{"planet", "earth"})));
  CHECK(sender.send(message_to(std::move(op), SelectorMode::kUnicast, 0, "1")) == Error::kSuccess);
  op = LabelOp("moon");
  op.op_or("gas");
  CHECK(sender.send(message_to(std::move(op), SelectorMode::kUnicast, 0, "2")) == Error::kSuccess);
  const auto send = [](LabelOp to, SelectorMode mode, uint32_t ttl, const char* text) {
    CHECK(sender.send(message_to(std::move(to), mode, ttl, text)) == Error::kSuccess);
  };
  send("planet", SelectorMode::kMulticast, 0, "3");
  send(false, SelectorMode::kMulticast, 0, "4");
  send("late", SelectorMode::kUnicast, 60000, "5");
  send(true, SelectorMode::kMulticast, 0, "6");
  CHECK(text_of(receive()) == "6");
  SAY("sent");
  listen_once();
}

void regions() {
  int freed = 0;
  const std::string tag = "tag";
  {
    ipmb::MemoryRegistry registry;
    ipmb::MemoryRegion frozen, lent, kept;
    Error error;
    std::tie(frozen, error) = ipmb::MemoryRegion::create(8192);
    CHECK(error == Error::kSuccess && std::get<0>(frozen.size()) == 8192);
    memset(std::get<0>(frozen.map(0, -1)), 'f', 8192);
    CHECK(frozen.freeze() == Error::kSuccess && std::get<0>(frozen.is_frozen()));
    CHECK(std::get<0>(frozen.frozen_data())[8191] == 'f');
    std::tie(lent, error) = registry.alloc_with_free(4096, &tag, [&freed] { freed++; });
    CHECK(error == Error::kSuccess);
    memset(std::get<0>(lent.map(0, 4096)), 'l', 4096);
    std::tie(kept, error) = lent.clone();
    CHECK(error == Error::kSuccess);
    int ends[2];
    CHECK(pipe(ends) == 0);
    Message message = message_to("test", SelectorMode::kUnicast, 60000, "regions");
    CHECK(message.memory_region_append(std::move(frozen)) == Error::kSuccess);
    CHECK(message.memory_region_append(std::move(lent)) == Error::kSuccess);
    CHECK(message.object_append(static_cast<ipmb_ffi::Object>(ends[1])) == Error::kSuccess);
    CHECK(sender.send(std::move(message)) == Error::kSuccess);
    char word[4] = "";
    CHECK(read(ends[0], word, 3) == 3 && strcmp(word, "hey") == 0);
    close(ends[0]);
    CHECK(std::get<0>(kept.ref_count()) > 2 && std::get<0>(kept.map(0, 1))[0] == 'r');
    CHECK(registry.maintain() == Error::kSuccess && freed == 0);
    SAY("seen");
    listen_once();
    kept = ipmb::MemoryRegion();
    CHECK(registry.maintain() == Error::kSuccess && freed == 1);
    // An allocation that fails neither calls nor leaks what was to be called.
    std::tie(kept, error) = registry.alloc_with_free(SIZE_MAX, nullptr, [&freed] { freed += 100; });
    CHECK(error != Error::kSuccess && !kept.valid());
    std::tie(kept, error) = registry.alloc_with_free(10, nullptr, [&freed] { freed += 10; });
    CHECK(error == Error::kSuccess);
    std::tie(kept, error) = registry.alloc_with_free(10, nullptr, nullptr);
    CHECK(error == Error::kSuccess);
  }
  CHECK(freed == 11);
}

void events() {
  int fd;
  Error error;
  std::tie(fd, error) = receiver.fd();
  CHECK(error == Error::kSuccess);
  for (;;) {
    Message message;
    for (std::tie(message, error) = receiver.try_recv(); error == Error::kSuccess;
         std::tie(message, error) = receiver.try_recv()) {
      const int format = std::get<0>(message.data());
      if (format == 0xffff) {
        return;
      }
      SAY("got %d", format);
    }
    CHECK(error == Error::kEmpty);
    pollfd wait = {fd, POLLIN, 0};
    CHECK(poll(&wait, 1, kSoon) == 1);
  }
}

// What is empty, moved from or not a text is an error, not a crash.
void empty() {
  Message none;
  CHECK(std::get<3>(none.bytes_data()) == Error::kInvalidArgument);
  CHECK(none.object_append(0) == Error::kInvalidArgument);
  CHECK(sender.send(std::move(none)) == Error::kInvalidArgument);
  ipmb::MemoryRegion region;
  CHECK(std::get<2>(region.map(0, -1)) == Error::kInvalidArgument);
  CHECK(std::get<1>(region.ref_count()) == Error::kInvalidArgument);
  CHECK(std::get<1>(region.clone()) == Error::kInvalidArgument);
  CHECK(std::get<1>(ipmb::Receiver().recv(0)) == Error::kInvalidArgument);
  CHECK(!LabelOp("\xff").valid() && !LabelOp(std::string("a\0b", 3)).valid());
  LabelOp op("a");
  op.op_and("\xff");
  CHECK(!op.valid());
  Message message = message_to(std::move(op), SelectorMode::kUnicast, 0, "x");
  CHECK(!message.valid());
  op = LabelOp("peer");
  op.op_not();
  op.op_not();
  Message sent = message_to(std::move(op), SelectorMode::kUnicast, 0, "x");
  Message& same = sent;
  sent = std::move(same);
  CHECK(sent.valid() && sender.send(std::move(sent)) == Error::kSuccess && text_of(receive()) == "x");

  ipmb::Label label{"a"};
  CHECK(label.append("b") == Error::kSuccess && label.valid());
  CHECK(label.append("\xff") == Error::kInvalidUtf8 && !label.valid());
  ipmb::Options options("bus", std::move(label), "", true);
  CHECK(std::get<2>(ipmb::join(options, 0)) == Error::kInvalidArgument);
  options.label = ipmb::Label();
  options.identifier = std::string("a\0b", 3);
  CHECK(std::get<2>(ipmb::join(options, 0)) == Error::kInvalidArgument);
  options.identifier = "";
  CHECK(std::get<2>(ipmb::join(options, 0)) == Error::kInvalidArgument);
  CHECK(ipmb::last_error().find("identifier") != std::string::npos);
  CHECK(std::string(ipmb::error_text(Error::kTimeout)) == "the time is up");
  const std::string bad("a\0b", 3);
  CHECK(std::get<1>(ipmb::MemoryRegistry().alloc(1, &bad)) == Error::kInvalidArgument);
  const ipmb::Version version;
  CHECK(version.major + version.minor + version.patch > 0);

  ipmb::Sender second;
  Error error;
  std::tie(second, error) = sender.clone();
  CHECK(error == Error::kSuccess && second.leave(kSoon) == Error::kSuccess);
  CHECK(std::get<1>(receiver.recv(kSoon)) == Error::kLeft);
}

}  // namespace

int main(int argc, char** argv) {
  const std::map<std::string, void (*)()> roles = {
      {"echo", echo},       {"full", full},       {"decode", decode}, {"selectors", selectors},
      {"regions", regions}, {"events", events}, {"empty", empty},
  };
  CHECK(argc == 3);
  const auto role = roles.find(argv[1]);
  CHECK(role != roles.end());
  join(argv[2]);
  role->second();
  sender = ipmb::Sender();
  receiver = ipmb::Receiver();
  SAY("bye");
  return 0;
}
