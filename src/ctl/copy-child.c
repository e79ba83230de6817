/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "basic/fd.h"
#include "basic/files.h"
#include "basic/strings.h"
#include "ctl/copy-child.h"
#include "ctl/flow.h"
#include "shared/tar.h"

#define DRAIN_BYTES_MAX (64 * KIB) /* behind the archive's end mark */
#define TEMPORARY_LEN   32U

enum {
        CHILD_FAILED = 1,
        CHILD_HUNG_UP = 2, /* on */
};

int copy_pack(const CopyEnd *c, int fd, Fault *reterr) {
        TarResult result;

        return tar_pack(c->fd, c->name, fd, NULL, NULL, &result, reterr);
}

/* The service may still write what rounds an archive up. */
static void drain(int fd) {
        char buffer[4096];
        ssize_t n = 1;

        for (size_t done = 0; n > 0 && done < DRAIN_BYTES_MAX; done += (size_t) n)
                n = read(fd, buffer, sizeof(buffer));
}

static int unpack_in(const CopyEnd *c, int fd, int dir_fd, Fault *reterr) {
        TarOptions options = {
                .flags = (c->preserve ? TAR_OWNERS | TAR_SET_ID | TAR_XATTRS : 0) |
                         (c->is_new ? TAR_DIRECTORIES : 0),
                .uid = (uid_t) -1,
                .gid = (gid_t) -1,
                .limits = TAR_LIMITS_COPY,
        };
        TarResult result;
        int r;

        r = tar_unpack(fd, dir_fd, &options, &result, reterr);
        if (r >= 0)
                drain(fd);
        return r;
}

/* A single file comes into a directory of its own: it may be anything until it was looked at. */
static int unpack_file(const CopyEnd *c, int fd, int dir_fd, Fault *reterr) {
        struct stat st;
        int r;

        r = unpack_in(c, fd, dir_fd, reterr);
        if (r < 0)
                return r;
        if (fstatat(dir_fd, c->name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(st.st_mode))
                return fault_set(reterr, FAULT_AGENT, "The capsule sent something else than the file '%s'.",
                                 c->name);
        if (renameat(dir_fd, c->name, c->fd, c->target) < 0)
                return fault_set_errno(reterr, errno, "Failed to make the file");
        return 0;
}

int copy_unpack(const CopyEnd *c, int fd, Fault *reterr) {
        _cleanup_close_ int dir_fd = -EBADF;
        char id[64], name[TEMPORARY_LEN];
        int r;

        if (!c->name)
                return unpack_in(c, fd, c->fd, reterr);
        r = id_random("cp", id);
        if (r < 0)
                return fault_set_errno(reterr, -r, "Failed to name a directory");
        (void) snprintf(name, sizeof(name), ".wrenn-%.16s", id);
        dir_fd = open_dir_at(c->fd, name, /* create= */ true, 0700);
        if (dir_fd < 0)
                return fault_set_errno(reterr, -dir_fd, "Failed to make a directory beside it");
        r = unpack_file(c, fd, dir_fd, reterr);
        (void) remove_tree_at(c->fd, name);
        return r;
}

static int pass_on(int from, int to, Fault *reterr) {
        int r;

        r = flow_run(from, to, NULL, NULL, NULL);
        return r < 0 && r != -EPIPE ? fault_set_errno(reterr, -r, "Failed to pass on the archive") : r;
}

int copy_from_stdin(const CopyEnd *c, int fd, Fault *reterr) {
        return pass_on(STDIN_FILENO, fd, reterr);
}

int copy_to_stdout(const CopyEnd *c, int fd, Fault *reterr) {
        return pass_on(fd, STDOUT_FILENO, reterr);
}

static void child_run(const CopyEnd *c, int fd, int report_fd) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        int r;

        (void) signal(SIGINT, SIG_IGN); /* cancels the job, whose end is ours: what we began is tidied up */
        (void) signal(SIGTERM, SIG_DFL);
        (void) signal(SIGPIPE, SIG_IGN);
        r = c->work(c, fd, &fault);
        if (r == -EPIPE)
                _exit(CHILD_HUNG_UP);
        if (r < 0) {
                const char *why = fault_is_set(&fault) ? fault.message : strerror(-r);

                (void) write_all(report_fd, why, strlen(why));
                _exit(CHILD_FAILED);
        }
        _exit(0);
}

int copy_end_start(CopyEnd *c, int *ret_fd) {
        int data[2], report[2], r;

        if (pipe2(data, O_CLOEXEC) < 0)
                return -errno;
        if (pipe2(report, O_CLOEXEC) < 0) {
                r = -errno;
                close_many(data, 2);
                return r;
        }
        c->pid = fork();
        r = c->pid < 0 ? -errno : 0;
        if (c->pid == 0) {
                (void) close_fd(data[!c->writes]);
                (void) close_fd(report[0]);
                child_run(c, data[c->writes], report[1]);
        }
        (void) close_fd(data[c->writes]);
        (void) close_fd(report[1]);
        if (r < 0) {
                (void) close_fd(data[!c->writes]);
                (void) close_fd(report[0]);
                return r;
        }
        c->report_fd = report[0];
        *ret_fd = data[!c->writes];
        return 0;
}

int copy_end_wait(CopyEnd *c, bool job_failed, char **ret_reason) {
        _cleanup_close_ int report = TAKE_FD(c->report_fd);
        _cleanup_free_ char *text = NULL;
        int r, status;

        if (job_failed && c->work == copy_from_stdin) /* it may wait for ever for what nobody takes */
                (void) kill(c->pid, SIGTERM);
        r = read_fd(report, FAULT_MESSAGE_MAX, &text, NULL);
        while (waitpid(c->pid, &status, 0) < 0)
                if (errno != EINTR)
                        return -errno;
        if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
                return 0;
        if (r < 0 || isempty(text))
                return -EPIPE;
        *ret_reason = TAKE_PTR(text);
        return -EIO;
}
