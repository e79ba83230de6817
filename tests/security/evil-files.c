/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "tests/security/evil.h"

static int try_open(const char *path, int flags) {
        int fd = open(path, flags | O_CLOEXEC, 0666);

        if (fd < 0)
                return errno;
        close(fd);
        return 0;
}

#define OPEN_PROBE(name, path, flags)         \
        static int name(const Params *p) {    \
                return try_open(path, flags); \
        }

OPEN_PROBE(shadow, "/etc/shadow", O_RDONLY)
OPEN_PROBE(root_home, "/root", O_RDONLY | O_DIRECTORY)
OPEN_PROBE(proc_self, "/proc/self/status", O_RDONLY)
OPEN_PROBE(proc_init, "/proc/1/environ", O_RDONLY)
OPEN_PROBE(sysfs, "/sys/kernel", O_RDONLY)
OPEN_PROBE(state_dir, "/var/lib/wrenn", O_RDONLY)
OPEN_PROBE(run_dir, "/run/wrenn", O_RDONLY)
OPEN_PROBE(dev_mem, "/dev/mem", O_RDWR)
OPEN_PROBE(dev_kmsg, "/dev/kmsg", O_RDWR)
OPEN_PROBE(dev_tun, "/dev/net/tun", O_RDWR)
OPEN_PROBE(dev_kvm, "/dev/kvm", O_RDWR)
OPEN_PROBE(dev_tty, "/dev/tty", O_RDWR)
OPEN_PROBE(dev_shm, "/dev/shm", O_RDONLY)
OPEN_PROBE(create_in_root, "/x", O_CREAT | O_WRONLY)
OPEN_PROBE(create_in_dev, "/dev/x", O_CREAT | O_WRONLY)
OPEN_PROBE(tmpfile_in_root, "/", O_TMPFILE | O_RDWR)
OPEN_PROBE(write_rootfs, "/rootfs", O_RDWR)
OPEN_PROBE(write_kernel, "/kernel", O_RDWR)
OPEN_PROBE(truncate_rootfs, "/rootfs", O_WRONLY | O_TRUNC)
OPEN_PROBE(dotdot, "/../../../../etc/passwd", O_RDONLY)

static int neighbour_layer(const Params *p) {
        return try_open(p->neighbour_file, O_RDONLY);
}

static int chmod_rootfs(const Params *p) {
        return answer(chmod("/rootfs", 0777));
}

static int chown_rootfs(const Params *p) {
        return answer(chown("/rootfs", p->uid, p->uid));
}

static int unlink_rootfs(const Params *p) {
        return answer(unlink("/rootfs"));
}

static int rename_layer(const Params *p) {
        return answer(rename("/layer", "/dev/layer"));
}

static int link_layer(const Params *p) {
        return answer(link("/layer", "/x"));
}

static int symlink_in_root(const Params *p) {
        return answer(symlink("/etc/shadow", "/x"));
}

static int mkdir_in_root(const Params *p) {
        return answer(mkdir("/x", 0777));
}

static int mknod_device(const Params *p) {
        return answer(mknod("/x", S_IFCHR | 0666, (1 << 8) | 1));
}

/* Nothing but what was bound: any other name is a leak. */
static int list_root(const Params *p) {
        static const char *const known[] = { ".",      "..",     "dev",    "lib",   "lib64", "usr",
                                             "kernel", "initrd", "rootfs", "layer", "params" };
        struct dirent *e;
        DIR *d = opendir("/");
        int r = 0;

        if (!d)
                return errno;
        while ((e = readdir(d))) {
                bool found = strcmp(e->d_name, p->own_root) == 0;

                for (size_t i = 0; i < ELEMENTSOF(known); i++)
                        found = found || strcmp(known[i], e->d_name) == 0;
                if (!found)
                        r = EEXIST;
        }
        closedir(d);
        return r;
}

static int list_dev(const Params *p) {
        struct dirent *e;
        DIR *d = opendir("/dev");
        unsigned n = 0;

        if (!d)
                return errno;
        while ((e = readdir(d)))
                n += e->d_name[0] != '.';
        closedir(d);
        return n == 1 ? 0 : EEXIST;
}

static int layer_beyond_limit(const Params *p) {
        int fd = open("/layer", O_RDWR | O_CLOEXEC), r;

        if (fd < 0)
                return ENODEV;
        r = answer(pwrite(fd, "x", 1, (off_t) p->fsize));
        close(fd);
        return r;
}

static int layer_grow(const Params *p) {
        return answer(truncate("/layer", (off_t) p->fsize + 4096));
}

static int layer_execute(const Params *p) {
        char *const argv[] = { (char *) "layer", NULL };

        (void) chmod("/layer", 0700);
        return answer(execve("/layer", argv, NULL));
}

static int layer_setuid_root(const Params *p) {
        return answer(chown("/layer", 0, 0));
}

static int execute_shell(const Params *p) {
        char *const argv[] = { (char *) "sh", (char *) "-c", (char *) ":", NULL };

        return answer(execve("/bin/sh", argv, NULL));
}

static int shell(const Params *p) {
        return in_child(execute_shell, p);
}

static int memfd_execute(const Params *p) {
        char *const argv[] = { (char *) "x", NULL };
        int fd = memfd_create("x", MFD_CLOEXEC), r;

        if (fd < 0)
                return ENODEV;
        (void) dprintf(fd, "#!/none\n");
        (void) fchmod(fd, 0700);
        r = answer(syscall(SYS_execveat, fd, "", argv, NULL, AT_EMPTY_PATH));
        close(fd);
        return r;
}

static int file_handle(const Params *p) {
        struct {
                struct file_handle h;
                unsigned char data[128];
        } handle = { .h.handle_bytes = 128 };
        int mount_id;

        return answer(name_to_handle_at(AT_FDCWD, "/layer", &handle.h, &mount_id, 0));
}

static int open_file_handle(const Params *p) {
        struct {
                struct file_handle h;
                unsigned char data[8];
        } handle = { .h = { .handle_bytes = 8, .handle_type = 1 } };

        return answer(open_by_handle_at(AT_FDCWD, &handle.h, O_RDONLY));
}

/* Three streams to the monitor and nothing else, no directory above all. Direct: nothing at all. */
static int inherited_fds(const Params *p) {
        unsigned n = 0;

        for (int fd = 3; fd < 4096; fd++) {
                struct stat st;

                if (fstat(fd, &st) < 0)
                        continue;
                if (!S_ISSOCK(st.st_mode))
                        return ENOTSOCK;
                n++;
        }
        return n == (p->direct ? 0 : 3) ? 0 : EMFILE;
}

static int standard_input(const Params *p) {
        struct stat st;

        if (fstat(STDIN_FILENO, &st) < 0)
                return errno;
        return S_ISCHR(st.st_mode) && st.st_rdev == ((1 << 8) | 3) ? 0 : ENXIO;
}

const Probe probes_files[] = {
        { "shadow", shadow, ENOENT },
        { "root-home", root_home, ENOENT },
        { "proc-self", proc_self, ENOENT },
        { "proc-init", proc_init, ENOENT },
        { "sysfs", sysfs, ENOENT },
        { "state-dir", state_dir, ENOENT },
        { "run-dir", run_dir, ENOENT },
        { "dev-mem", dev_mem, ENOENT },
        { "dev-kmsg", dev_kmsg, ENOENT },
        { "dev-tun", dev_tun, ENOENT },
        { "dev-kvm", dev_kvm, ENOENT },
        { "dev-tty", dev_tty, ENOENT },
        { "dev-shm", dev_shm, ENOENT },
        { "create-in-root", create_in_root, EROFS },
        { "create-in-dev", create_in_dev, EROFS },
        { "tmpfile-in-root", tmpfile_in_root, EROFS },
        { "write-rootfs", write_rootfs, EROFS },
        { "write-kernel", write_kernel, EROFS },
        { "truncate-rootfs", truncate_rootfs, EROFS },
        { "dotdot", dotdot, ENOENT },
        { "neighbour-layer", neighbour_layer, ENOENT },
        { "chmod-rootfs", chmod_rootfs, EROFS },
        { "chown-rootfs", chown_rootfs, EROFS },
        { "unlink-rootfs", unlink_rootfs, EROFS },
        { "rename-layer", rename_layer, EROFS },
        { "link-layer", link_layer, EROFS },
        { "symlink-in-root", symlink_in_root, EROFS },
        { "mkdir-in-root", mkdir_in_root, EROFS },
        { "mknod-device", mknod_device, EROFS },
        { "list-root", list_root, 0 },
        { "list-dev", list_dev, 0 },
        { "layer-beyond-limit", layer_beyond_limit, EFBIG },
        { "layer-grow", layer_grow, EFBIG },
        { "layer-execute", layer_execute, EACCES },
        { "layer-chown-root", layer_setuid_root, EPERM },
        { "shell", shell, ENOENT },
        { "memfd-execute", memfd_execute, EPERM },
        { "file-handle", file_handle, EPERM },
        { "open-file-handle", open_file_handle, EPERM },
        { "inherited-fds", inherited_fds, 0 },
        { "standard-input", standard_input, 0 },
        {},
};
