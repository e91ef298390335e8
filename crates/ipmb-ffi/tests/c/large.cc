// A payload of more than 4 GiB, which the older functions cannot tell the size of. Needs 5 GiB of memory.

#include <ipmb.h>
#include <sys/mman.h>

#include "check.h"

using ipmb::Error;

int main() {
  const size_t size = size_t{UINT32_MAX} + 6;
  // Zeros that take no memory until they are copied.
  void* zeros = mmap(nullptr, size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  CHECK(zeros != MAP_FAILED);
  const auto* bytes = static_cast<const uint8_t*>(zeros);
  const ipmb::Selector selector("nobody", ipmb_ffi::SelectorMode::kUnicast, 0);
  ipmb_ffi::Message raw = nullptr;
  CHECK(ipmb_ffi::ipmb_message_try(selector.as_ffi(), 7, bytes, size, &raw) == 0);

  uint16_t format = 1;
  const uint8_t* data = bytes;
  uint32_t narrow = 1;
  ipmb_ffi::ipmb_message_bytes_data(&raw, &format, &data, &narrow);
  CHECK(LAST_CODE() == ipmb_ffi::ERROR_CODE_TOO_LARGE && format == 0 && data == nullptr && narrow == 0);
  size_t wide = 0;
  CHECK(ipmb_ffi::ipmb_message_bytes_data_try(&raw, &format, &data, &wide) == 0);
  CHECK(format == 7 && wide == size && data[size - 1] == 0);
  ipmb_ffi::ipmb_message_drop(raw);

  ipmb::Message message;
  Error error;
  std::tie(message, error) = ipmb::Message::create(selector, 7, bytes, size);
  CHECK(error == Error::kSuccess);
  CHECK(std::get<3>(message.bytes_data()) == Error::kTooLarge);
  CHECK(std::get<2>(message.data()) == size && std::get<3>(message.data()) == Error::kSuccess);
  SAY("fine");
  return 0;
}
