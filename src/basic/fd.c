/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See fd.h. Everything returns negative errno, taken on the line after the call. */

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "basic/fd.h"
#include "basic/strings.h"

int close_fd(int fd) {
        if (fd >= 0) {
                int saved_errno = errno;

                (void) close(fd);
                errno = saved_errno;
        }

        return -EBADF;
}

void close_many(int *fds, size_t n) {
        for (size_t i = 0; i < n; i++)
                fds[i] = close_fd(fds[i]);
}

static int fd_flag(int fd, int get, int set, int flag, bool on) {
        int flags;

        flags = fcntl(fd, get);
        if (flags < 0)
                return -errno;
        if (!!(flags & flag) == on)
                return 0;
        if (fcntl(fd, set, on ? flags | flag : flags & ~flag) < 0)
                return -errno;

        return 0;
}

int fd_nonblock(int fd, bool on) {
        return fd_flag(fd, F_GETFL, F_SETFL, O_NONBLOCK, on);
}

int fd_cloexec(int fd, bool on) {
        return fd_flag(fd, F_GETFD, F_SETFD, FD_CLOEXEC, on);
}

int fd_move_above(int fd, int min_fd) {
        int copy, r;

        if (fd >= min_fd) {
                r = fd_cloexec(fd, true);
                return r < 0 ? r : fd;
        }

        copy = fcntl(fd, F_DUPFD_CLOEXEC, min_fd);
        if (copy < 0)
                return -errno;

        (void) close(fd);
        return copy;
}

int write_all(int fd, const void *data, size_t n) {
        const char *p = data;

        while (n > 0) {
                ssize_t k;

                k = write(fd, p, n);
                if (k < 0) {
                        if (errno == EINTR)
                                continue;
                        return -errno;
                }

                p += k;
                n -= (size_t) k;
        }

        return 0;
}

ssize_t read_full(int fd, void *data, size_t n) {
        size_t done = 0;

        while (done < n) {
                ssize_t k;

                k = read(fd, (char *) data + done, n - done);
                if (k < 0) {
                        if (errno == EINTR)
                                continue;
                        return -errno;
                }
                if (k == 0)
                        break;

                done += (size_t) k;
        }

        return (ssize_t) done;
}

/* There is no bindat(2); a path through the directory's fd has the same effect and is short. */
static int unix_address(int dir_fd, const char *name, struct sockaddr_un *ret) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int n;

        if (isempty(name) || strchr(name, '/'))
                return -EINVAL;

        if (dir_fd == AT_FDCWD)
                n = snprintf(address.sun_path, sizeof(address.sun_path), "%s", name);
        else
                n = snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%i/%s", dir_fd,
                             name);
        if (n < 0 || (size_t) n >= sizeof(address.sun_path))
                return -ENAMETOOLONG;

        *ret = address;
        return 0;
}

int unix_listen(int dir_fd, const char *name, int type, mode_t mode, int backlog) {
        _cleanup_close_ int fd = -EBADF;
        struct sockaddr_un address;
        struct stat st;
        int r;

        r = unix_address(dir_fd, name, &address);
        if (r < 0)
                return r;

        fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0)
                return -errno;

        if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) >= 0 && S_ISSOCK(st.st_mode))
                (void) unlinkat(dir_fd, name, 0);

        /* bind(2) makes the file with the socket's own mode less the umask: never wider than asked, not even
         * for a moment */
        if (fchmod(fd, mode) < 0)
                return -errno;
        if (bind(fd, (const struct sockaddr *) &address, sizeof(address)) < 0)
                return -errno;
        if (fchmodat(dir_fd, name, mode, 0) < 0)
                return -errno;
        if (listen(fd, backlog) < 0)
                return -errno;

        return TAKE_FD(fd);
}

int unix_connect(int dir_fd, const char *name, int type) {
        _cleanup_close_ int fd = -EBADF;
        struct sockaddr_un address;
        int r;

        r = unix_address(dir_fd, name, &address);
        if (r < 0)
                return r;

        fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0)
                return -errno;
        if (connect(fd, (const struct sockaddr *) &address, sizeof(address)) < 0)
                return -errno;

        return TAKE_FD(fd);
}

int peer_uid(int fd, uid_t *ret) {
        struct ucred cred;
        socklen_t n = sizeof(cred);

        if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &n) < 0)
                return -errno;

        *ret = cred.uid;
        return 0;
}

int memfd_from(const char *name, const void *data, size_t n) {
        _cleanup_close_ int fd = -EBADF;
        int r;

        fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
        if (fd < 0)
                return -errno;

        r = write_all(fd, data, n);
        if (r < 0)
                return r;
        if (lseek(fd, 0, SEEK_SET) < 0)
                return -errno;
        if (fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) < 0)
                return -errno;

        return TAKE_FD(fd);
}

int pidfd_open_checked(pid_t pid) {
        int fd;

        fd = pidfd_open(pid, 0);
        return fd < 0 ? -errno : fd;
}

int pidfd_kill(int pidfd, int sig) {
        return pidfd_send_signal(pidfd, sig, NULL, 0) < 0 ? -errno : 0;
}

int pidfd_reap(int pidfd, int *ret_status) {
        struct pollfd p = { .fd = pidfd, .events = POLLIN };
        siginfo_t si = {};

        if (waitid(P_PIDFD, (id_t) pidfd, &si, WEXITED | WNOHANG) < 0) {
                if (errno != ECHILD)
                        return -errno;

                /* not our child: all we can learn is that it is gone */
                if (poll(&p, 1, 0) < 0)
                        return -errno;
                if (p.revents & POLLNVAL)
                        return -EBADF;
                if (!(p.revents & POLLIN))
                        return 0;

                *ret_status = -1;
                return 1;
        }

        if (si.si_pid == 0)
                return 0;

        if (si.si_code == CLD_EXITED)
                *ret_status = W_EXITCODE(si.si_status, 0);
        else
                *ret_status = si.si_status | (si.si_code == CLD_DUMPED ? WCOREFLAG : 0);
        return 1;
}

uint64_t now_usec(clockid_t clock) {
        struct timespec ts;

        assert(clock_gettime(clock, &ts) >= 0);
        return (uint64_t) ts.tv_sec * USEC_PER_SEC + (uint64_t) ts.tv_nsec / NSEC_PER_USEC;
}
