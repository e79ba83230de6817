/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The system calls that no VMM and no monitor of ours makes. wrennd.service's own filter and the VMM's come
 * on top; this one holds also where the launcher was started by hand, and it is the one tests/security
 * measures. A list of what is refused and not of what is allowed: two VMMs and their libraries change, the
 * attack surface below does not.
 */

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "launch/launch.h"

#if defined(__x86_64__)
#define FILTER_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define FILTER_ARCH AUDIT_ARCH_AARCH64
#else
#error "no system call filter for this architecture"
#endif

#define X32_BIT 0x40000000U
#define NAMESPACE_FLAGS                                                                               \
        (CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | \
         CLONE_NEWNET)
#define FILTER_MAX 256U

static const int refused[] = {
        /* namespaces and mounts */
        SYS_unshare,
        SYS_setns,
        SYS_mount,
        SYS_umount2,
        SYS_pivot_root,
        SYS_chroot,
        SYS_open_tree,
        SYS_move_mount,
        SYS_fsopen,
        SYS_fsconfig,
        SYS_fsmount,
        SYS_fspick,
        SYS_mount_setattr,
        SYS_open_by_handle_at,
        SYS_name_to_handle_at,
        /* keys, tracing, other processes; process_vm_readv() stays: the monitor reads its VMM's pages with
           it */
        SYS_add_key,
        SYS_request_key,
        SYS_keyctl,
        SYS_ptrace,
        SYS_kcmp,
        SYS_pidfd_getfd,
        SYS_process_madvise,
        /* wide kernel interfaces */
        SYS_bpf,
        SYS_perf_event_open,
        SYS_userfaultfd,
        SYS_io_uring_setup,
        SYS_io_uring_enter,
        SYS_io_uring_register,
        SYS_fanotify_init,
        SYS_lookup_dcookie,
        SYS_quotactl,
        SYS_acct,
        SYS_vhangup,
        SYS_personality,
        SYS_migrate_pages,
        SYS_move_pages,
        /* the machine: modules, clocks, power, swap, log */
        SYS_init_module,
        SYS_finit_module,
        SYS_delete_module,
        SYS_kexec_load,
        SYS_reboot,
        SYS_swapon,
        SYS_swapoff,
        SYS_syslog,
        SYS_settimeofday,
        SYS_clock_settime,
        SYS_clock_adjtime,
        SYS_adjtimex,
        SYS_sethostname,
        SYS_setdomainname,
        /* a program without a path */
        SYS_execveat,
#ifdef SYS_kexec_file_load
        SYS_kexec_file_load,
#endif
#ifdef SYS_quotactl_fd
        SYS_quotactl_fd,
#endif
#if defined(__x86_64__)
        SYS_iopl,
        SYS_ioperm,
        SYS_modify_ldt,
        SYS_uselib,
        SYS_ustat,
        SYS_sysfs,
        SYS__sysctl,
        SYS_create_module,
#endif
};

typedef struct Filter {
        struct sock_filter code[FILTER_MAX];
        unsigned short n;
} Filter;

static void emit(Filter *f, uint16_t code, uint32_t k, uint8_t jt, uint8_t jf) {
        if (f->n < FILTER_MAX)
                f->code[f->n++] = (struct sock_filter) { .code = code, .k = k, .jt = jt, .jf = jf };
}

static void emit_return(Filter *f, uint32_t what) {
        emit(f, BPF_RET | BPF_K, what, 0, 0);
}

static void emit_load_argument(Filter *f, unsigned i) {
        emit(f, BPF_LD | BPF_W | BPF_ABS, (uint32_t) offsetof(struct seccomp_data, args[i]), 0, 0);
}

/* Refuses system call nr. */
static void emit_refuse(Filter *f, int nr, int error) {
        emit(f, BPF_JMP | BPF_JEQ | BPF_K, (uint32_t) nr, 0, 1);
        emit_return(f, SECCOMP_RET_ERRNO | (uint32_t) error);
}

/* Refuses nr where a bit of mask is set in its argument; the block ends the program for nr. */
static void emit_refuse_bits(Filter *f, int nr, unsigned argument, uint32_t mask, int error) {
        emit(f, BPF_JMP | BPF_JEQ | BPF_K, (uint32_t) nr, 0, 4);
        emit_load_argument(f, argument);
        emit(f, BPF_JMP | BPF_JSET | BPF_K, mask, 0, 1);
        emit_return(f, SECCOMP_RET_ERRNO | (uint32_t) error);
        emit_return(f, SECCOMP_RET_ALLOW);
}

/* Refuses nr where all bits of mask are set in its argument. */
static void emit_refuse_all_bits(Filter *f, int nr, unsigned argument, uint32_t mask, int error) {
        emit(f, BPF_JMP | BPF_JEQ | BPF_K, (uint32_t) nr, 0, 5);
        emit_load_argument(f, argument);
        emit(f, BPF_ALU | BPF_AND | BPF_K, mask, 0, 0);
        emit(f, BPF_JMP | BPF_JEQ | BPF_K, mask, 0, 1);
        emit_return(f, SECCOMP_RET_ERRNO | (uint32_t) error);
        emit_return(f, SECCOMP_RET_ALLOW);
}

/* Refuses nr unless its first argument is value. */
static void emit_allow_only(Filter *f, int nr, uint32_t value, int error) {
        emit(f, BPF_JMP | BPF_JEQ | BPF_K, (uint32_t) nr, 0, 4);
        emit_load_argument(f, 0);
        emit(f, BPF_JMP | BPF_JEQ | BPF_K, value, 1, 0);
        emit_return(f, SECCOMP_RET_ERRNO | (uint32_t) error);
        emit_return(f, SECCOMP_RET_ALLOW);
}

static void filter_build(Filter *f) {
        emit(f, BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch), 0, 0);
        emit(f, BPF_JMP | BPF_JEQ | BPF_K, FILTER_ARCH, 1, 0);
        emit_return(f, SECCOMP_RET_KILL_PROCESS);
        emit(f, BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr), 0, 0);
#if defined(__x86_64__)
        emit(f, BPF_JMP | BPF_JGE | BPF_K, X32_BIT, 0, 1);
        emit_return(f, SECCOMP_RET_ERRNO | ENOSYS);
#endif

        for (size_t i = 0; i < ELEMENTSOF(refused); i++)
                emit_refuse(f, refused[i], EPERM);

        /* clone3() hides its flags behind a pointer; libc falls back to clone() */
        emit_refuse(f, SYS_clone3, ENOSYS);
        emit_refuse_bits(f, SYS_clone, 0, NAMESPACE_FLAGS, EPERM);

        /* no memory that is or becomes both writable and executable, as MemoryDenyWriteExecute= */
        emit_refuse_all_bits(f, SYS_mmap, 2, PROT_WRITE | PROT_EXEC, EPERM);
        emit_refuse_bits(f, SYS_mprotect, 2, PROT_EXEC, EPERM);
        emit_refuse_bits(f, SYS_pkey_mprotect, 2, PROT_EXEC, EPERM);
        emit_refuse_bits(f, SYS_shmat, 2, SHM_EXEC, EPERM);

        /* every other address family is a way around the tap, or kernel code nobody here needs */
        emit_allow_only(f, SYS_socket, AF_UNIX, EAFNOSUPPORT);
        emit_allow_only(f, SYS_socketpair, AF_UNIX, EAFNOSUPPORT);
        emit_return(f, SECCOMP_RET_ALLOW);
}

int step_filter(Plan *p) {
        Filter f = {};
        struct sock_fprog program;

        filter_build(&f);
        if (f.n >= FILTER_MAX)
                return launch_error(0, "the system call filter is too long");
        program = (struct sock_fprog) { .len = f.n, .filter = f.code };
        if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) < 0)
                return launch_error(errno, "cannot install the system call filter");
        return 0;
}
