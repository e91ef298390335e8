// What the macOS backend (crates/ipmb/src/sys/macos) takes for granted of the system's headers. The numbers of structures stand
// in libproc.rs, too, where the compiler holds them against the Rust definitions, and as places of words in ports/letter.rs; constants are
// those of libproc.rs, mach.rs, ports/letter.rs or the crate libc.
#include <fcntl.h>
#include <libproc.h>
#include <mach/mach.h>
#include <mach/vm_inherit.h>
#include <poll.h>
#include <stddef.h>
#include <sys/event.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/proc.h>
#include <sys/proc_info.h>
#include <sys/socket.h>
#include <sys/ucred.h>
#include <sys/un.h>
#include <sys/utsname.h>

#define SIZE(type, size) _Static_assert(sizeof(type) == (size), "size of " #type)
#define AT(type, field, offset) _Static_assert(offsetof(type, field) == (offset), #type "." #field)
#define IS(constant, value) _Static_assert((constant) == (value), #constant)

SIZE(struct proc_fileinfo, 24);
AT(struct proc_fileinfo, fi_openflags, 0);
AT(struct proc_fileinfo, fi_status, 4);
AT(struct proc_fileinfo, fi_offset, 8);
AT(struct proc_fileinfo, fi_type, 16);
AT(struct proc_fileinfo, fi_guardflags, 20);
SIZE(struct vinfo_stat, 136);
AT(struct vinfo_stat, vst_uid, 16);
AT(struct vinfo_stat, vst_size, 88);
SIZE(struct pshm_fdinfo, 1192);
AT(struct pshm_fdinfo, pshminfo, 24);
AT(struct pshm_fdinfo, pshminfo.pshm_stat, 24);
AT(struct pshm_fdinfo, pshminfo.pshm_mappaddr, 160);
AT(struct pshm_fdinfo, pshminfo.pshm_name, 168);
SIZE(struct proc_bsdinfo, 136);
AT(struct proc_bsdinfo, pbi_status, 4);
AT(struct proc_bsdinfo, pbi_start_tvsec, 120);
AT(struct proc_bsdinfo, pbi_start_tvusec, 128);
SIZE(struct proc_fdinfo, 8);
AT(struct proc_fdinfo, proc_fdtype, 4);
IS(PROC_PIDFDPSHMINFO, 5);
IS(PROX_FDTYPE_PSHM, 3);
IS(PROC_UID_ONLY, 4);
IS(PROC_PIDLISTFDS, 1);
IS(PROC_PIDTBSDINFO, 3);
IS(PROC_FP_SHARED, 1);
IS(FREAD, 1);
IS(FWRITE, 2);
IS(SSTOP, 4);

SIZE(struct xucred, 76);
AT(struct xucred, cr_uid, 4);
AT(struct xucred, cr_ngroups, 8);
AT(struct xucred, cr_groups, 12);
IS(XUCRED_VERSION, 0);
IS(SOL_LOCAL, 0);
IS(LOCAL_PEERCRED, 1);
IS(LOCAL_PEERPID, 2);
SIZE(struct sockaddr_un, 106);
AT(struct sockaddr_un, sun_path, 2);
SIZE(struct msghdr, 48);
AT(struct msghdr, msg_control, 32);
AT(struct msghdr, msg_controllen, 40);
AT(struct msghdr, msg_flags, 44);
SIZE(struct cmsghdr, 12);
IS(CMSG_LEN(4 * 253), 12 + 4 * 253);
IS(CMSG_SPACE(4 * 253), 12 + 4 * 253);
IS(SCM_RIGHTS, 1);
IS(MSG_DONTWAIT, 0x80);
IS(MSG_NOSIGNAL, 0x80000);
IS(MSG_PEEK, 2);
IS(MSG_CTRUNC, 0x20);
IS(SO_NOSIGPIPE, 0x1022);
IS(SO_SNDBUF, 0x1001);
IS(SO_RCVBUF, 0x1002);
IS(SO_SNDLOWAT, 0x1003);
IS(FIONREAD, 0x4004667f);
SIZE(struct utsname, 1280);
AT(struct utsname, release, 512);

SIZE(struct kevent, 32);
AT(struct kevent, filter, 8);
AT(struct kevent, flags, 10);
AT(struct kevent, fflags, 12);
AT(struct kevent, data, 16);
AT(struct kevent, udata, 24);
IS(EVFILT_READ, -1);
IS(EVFILT_WRITE, -2);
IS(EVFILT_PROC, -5);
IS(NOTE_EXIT, 0x80000000);
IS(NOTE_LOWAT, 1);
IS(EV_ADD, 1);
IS(EV_DELETE, 2);
IS(EV_CLEAR, 0x20);
IS(EV_EOF, 0x8000);
IS(EV_ERROR, 0x4000);
SIZE(struct pollfd, 8);

SIZE(struct flock, 24);
AT(struct flock, l_type, 20);
AT(struct flock, l_whence, 22);
IS(F_OFD_SETLK, 90);
IS(F_WRLCK, 3);
IS(F_DUPFD_CLOEXEC, 67);
IS(VM_INHERIT_NONE, 2);
SIZE(off_t, 8);

SIZE(mach_port_t, 4);
SIZE(kern_return_t, 4);
SIZE(mach_msg_return_t, 4);
SIZE(mach_msg_option_t, 4);
SIZE(mach_msg_size_t, 4);
SIZE(mach_msg_timeout_t, 4);
SIZE(mach_port_right_t, 4);
SIZE(mach_port_delta_t, 4);
SIZE(mach_port_flavor_t, 4);
SIZE(mach_msg_type_name_t, 4);
SIZE(mach_msg_header_t, 24);
AT(mach_msg_header_t, msgh_bits, 0);
AT(mach_msg_header_t, msgh_size, 4);
AT(mach_msg_header_t, msgh_remote_port, 8);
AT(mach_msg_header_t, msgh_local_port, 12);
AT(mach_msg_header_t, msgh_voucher_port, 16);
AT(mach_msg_header_t, msgh_id, 20);
SIZE(mach_msg_body_t, 4);
AT(mach_msg_body_t, msgh_descriptor_count, 0);
SIZE(mach_msg_port_descriptor_t, 12);
AT(mach_msg_port_descriptor_t, name, 0);
SIZE(mach_msg_audit_trailer_t, 52);
AT(mach_msg_audit_trailer_t, msgh_trailer_type, 0);
AT(mach_msg_audit_trailer_t, msgh_trailer_size, 4);
AT(mach_msg_audit_trailer_t, msgh_audit, 20);
AT(audit_token_t, val[5], 20);
SIZE(mach_msg_max_trailer_t, 68);
SIZE(mach_port_limits_t, 4);
IS(MACH_PORT_LIMITS_INFO, 1);
IS(MACH_PORT_LIMITS_INFO_COUNT, 1);
IS(MACH_PORT_QLIMIT_LARGE, 1024);
IS(MACH_PORT_NULL, 0);
IS(MACH_PORT_DEAD, 0xffffffffu);
IS(MACH_PORT_RIGHT_SEND, 0);
IS(MACH_PORT_RIGHT_RECEIVE, 1);
IS(MACH_PORT_RIGHT_DEAD_NAME, 4);
IS(MACH_MSGH_BITS_COMPLEX, 0x80000000u);
IS(MACH_MSGH_BITS_REMOTE_MASK, 0x1f);
IS(MACH_MSG_TYPE_PORT_SEND, 17);
IS(MACH_MSG_TYPE_COPY_SEND, 19);
IS(MACH_MSG_TYPE_MAKE_SEND, 20);
IS(MACH_MSG_TYPE_MAKE_SEND_ONCE, 21);
IS(MACH_MSG_TRAILER_FORMAT_0, 0);
IS(MACH_SEND_MSG, 1);
IS(MACH_RCV_MSG, 2);
IS(MACH_RCV_LARGE, 4);
IS(MACH_SEND_TIMEOUT, 0x10);
IS(MACH_RCV_TIMEOUT, 0x100);
IS(MACH_RCV_TRAILER_TYPE(MACH_MSG_TRAILER_FORMAT_0) | MACH_RCV_TRAILER_ELEMENTS(MACH_RCV_TRAILER_AUDIT), 0x03000000);
IS(MACH_MSG_MASK, 0x3e00);
IS(MACH_SEND_INVALID_DEST, 0x10000003);
IS(MACH_SEND_TIMED_OUT, 0x10000004);
IS(MACH_SEND_INVALID_RIGHT, 0x1000000a);
IS(MACH_SEND_NO_BUFFER, 0x1000000d);
IS(MACH_RCV_TOO_LARGE, 0x10004004);
IS(MACH_RCV_HEADER_ERROR, 0x1000400b);
IS(MACH_RCV_BODY_ERROR, 0x1000400c);
