// What the macOS backend (crates/ipmb/src/sys/macos) takes for granted of the system's headers. The numbers of structures stand
// in libproc.rs, too, where the compiler holds them against the Rust definitions; constants are those of libproc.rs or the crate libc.
#include <fcntl.h>
#include <libproc.h>
#include <mach/vm_inherit.h>
#include <poll.h>
#include <stddef.h>
#include <sys/event.h>
#include <sys/mman.h>
#include <sys/proc.h>
#include <sys/proc_info.h>
#include <sys/socket.h>
#include <sys/ucred.h>
#include <sys/un.h>

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
IS(SO_SNDLOWAT, 0x1003);

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
