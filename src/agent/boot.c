/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>

#include "agent/boot.h"
#include "agent/network.h"
#include "basic/fd.h"
#include "basic/files.h"
#include "basic/log.h"
#include "basic/strings.h"

#define MODULES_DIR       "/modules"
#define MODULES_ORDER_MAX (64 * KIB)
#define NEW_ROOT          "/newroot"
#define NOFILE_MAX        1048576U /* fs.nr_open of the kernel */
#define TERM_WAIT_USEC    (1 * USEC_PER_SEC)

typedef struct BootMount {
        const char *type, *target, *options;
        unsigned long flags;
} BootMount;

static const BootMount early_mounts[] = {
        { "proc", "/proc", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC },
        { "sysfs", "/sys", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC },
        { "devtmpfs", "/dev", "mode=0755", MS_NOSUID },
};

/* api.md §6.1; sizes: a full one must not take all memory. */
static const BootMount late_mounts[] = {
        { "devpts", "/dev/pts", "gid=5,mode=620,ptmxmode=666", MS_NOSUID | MS_NOEXEC },
        { "tmpfs", "/dev/shm", "mode=1777,size=50%", MS_NOSUID | MS_NODEV },
        { "tmpfs", "/run", "mode=0755,size=25%", MS_NOSUID | MS_NODEV },
        { "tmpfs", "/tmp", "mode=1777,size=50%", MS_NOSUID | MS_NODEV },
        { "cgroup2", "/sys/fs/cgroup", "nsdelegate", MS_NOSUID | MS_NODEV | MS_NOEXEC },
};

static const char *const dev_links[][2] = {
        { "/proc/self/fd", "/dev/fd" },
        { "/proc/self/fd/0", "/dev/stdin" },
        { "/proc/self/fd/1", "/dev/stdout" },
        { "/proc/self/fd/2", "/dev/stderr" },
};

static int mount_one(const BootMount *m) {
        if (mkdir(m->target, 0755) < 0 && errno != EEXIST)
                return -errno;

        return mount(m->type, m->target, m->type, m->flags, m->options) < 0 ? -errno : 0;
}

void boot_console(void) {
        int null_fd, console_fd;

        for (size_t i = 0; i < ELEMENTSOF(early_mounts); i++)
                (void) mount_one(&early_mounts[i]);

        null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
        console_fd = open("/dev/console", O_WRONLY | O_NOCTTY | O_CLOEXEC);
        if (console_fd < 0)
                console_fd = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);
        if (null_fd < 0)
                return;

        (void) dup2(null_fd, STDIN_FILENO);
        (void) dup2(console_fd >= 0 ? console_fd : null_fd, STDOUT_FILENO);
        (void) dup2(console_fd >= 0 ? console_fd : null_fd, STDERR_FILENO);
        if (null_fd > STDERR_FILENO)
                (void) close(null_fd);
        if (console_fd > STDERR_FILENO)
                (void) close(console_fd);
}

static int load_module(const char *name) {
        _cleanup_free_ char *path = strjoin(MODULES_DIR "/", name);
        _cleanup_close_ int fd = -EBADF;

        if (!path)
                return -ENOMEM;

        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return -errno;

        return syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST ? -errno : 0;
}

/* /modules/order names the files, dependencies first. */
static int load_modules(void) {
        _cleanup_free_ char *order = NULL;
        _cleanup_strv_ char **names = NULL;
        int r;

        r = read_file_at(AT_FDCWD, MODULES_DIR "/order", MODULES_ORDER_MAX, &order, NULL);
        if (r == -ENOENT) /* a kernel with everything built in */
                return 0;
        if (r < 0)
                return log_error_errno(r, "Failed to read " MODULES_DIR "/order: %m");

        names = strv_split(order, "\n");
        STRV_FOREACH(name, names) {
                r = load_module(*name);
                if (r < 0)
                        return log_error_errno(r, "Failed to load module '%s': %m", *name);
        }

        return 0;
}

/* disks */

static bool disk_has_serial(const char *disk, const char *serial) {
        _cleanup_free_ char *path = strjoin("/sys/block/", disk, "/serial"), *text = NULL;

        return path && read_file_at(AT_FDCWD, path, 256, &text, NULL) >= 0 && streq(text, serial);
}

static int is_virtio_disk(const struct dirent *entry) {
        return startswith(entry->d_name, "vd") != NULL;
}

/* Paths of both disks; -EAGAIN while they are not there. */
static int find_disks(char **ret_base, char **ret_layer) {
        struct dirent **list;
        int n, base = -1, layer = -1, r = -EAGAIN;

        n = scandir("/sys/block", &list, is_virtio_disk, alphasort);
        if (n < 0)
                return -errno;

        for (int i = 0; i < n; i++) {
                if (base < 0 && disk_has_serial(list[i]->d_name, BOOT_SERIAL_BASE))
                        base = i;
                else if (layer < 0 && disk_has_serial(list[i]->d_name, BOOT_SERIAL_LAYER))
                        layer = i;
        }
        if (base < 0 && layer < 0 && n >= 2) {
                base = 0;
                layer = 1;
        }

        if (base >= 0 && layer >= 0) {
                *ret_base = strjoin("/dev/", list[base]->d_name);
                *ret_layer = strjoin("/dev/", list[layer]->d_name);
                r = *ret_base && *ret_layer ? 0 : -ENOMEM;
        }

        for (int i = 0; i < n; i++)
                free(list[i]);
        free(list);
        return r;
}

static int wait_disks(char **ret_base, char **ret_layer) {
        uint64_t until = now_usec(CLOCK_MONOTONIC) + BOOT_DISK_WAIT_USEC;

        for (;;) {
                int r;

                r = find_disks(ret_base, ret_layer);
                if (r != -EAGAIN)
                        return r;
                if (now_usec(CLOCK_MONOTONIC) >= until)
                        return -ENODEV;

                (void) usleep(1000);
        }
}

/* root */

static int mount_disks(void) {
        _cleanup_free_ char *base = NULL, *layer = NULL;
        int r;

        r = wait_disks(&base, &layer);
        if (r < 0)
                return log_error_errno(r, "Failed to find the disks: %m");

        (void) mkdir("/base", 0755);
        (void) mkdir("/layer", 0755);
        (void) mkdir(NEW_ROOT, 0755);
        if (mount(base, "/base", "erofs", MS_RDONLY, NULL) < 0)
                return log_error_errno(errno, "Failed to mount the base '%s': %m", base);
        /* noinit_itable: the layer is a sparse file of the host, tables nobody uses must not fill it. */
        if (mount(layer, "/layer", "ext4", MS_NOATIME, "noinit_itable") < 0)
                return log_error_errno(errno, "Failed to mount the layer '%s': %m", layer);

        return 0;
}

static int mount_root(void) {
        struct stat st;

        if (mkdir("/layer/upper", 0755) >= 0 && stat("/base", &st) >= 0) {
                (void) chmod("/layer/upper", st.st_mode & 07777);
                (void) chown("/layer/upper", st.st_uid, st.st_gid);
        }
        (void) mkdir("/layer/work", 0700);
        if (mount("overlay", NEW_ROOT, "overlay", 0,
                  "lowerdir=/base,upperdir=/layer/upper,workdir=/layer/work,redirect_dir=on") < 0)
                return log_error_errno(errno, "Failed to join base and layer: %m");

        (void) umount2("/base", MNT_DETACH); /* overlayfs holds its own reference */
        return 0;
}

static int switch_root(void) {
        for (size_t i = 0; i < ELEMENTSOF(early_mounts); i++) {
                _cleanup_free_ char *target = strjoin(NEW_ROOT, early_mounts[i].target);

                if (!target)
                        return log_error_errno(ENOMEM, "Failed to change the root: %m");
                (void) mkdir(target, 0755);
                if (mount(early_mounts[i].target, target, NULL, MS_MOVE, NULL) < 0)
                        return log_error_errno(errno, "Failed to move %s: %m", early_mounts[i].target);
        }

        if (chdir(NEW_ROOT) < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 ||
            chdir("/") < 0)
                return log_error_errno(errno, "Failed to change the root: %m");

        return 0;
}

static void enable_controllers(void) {
        static const char *const controllers[] = { "+cpu", "+memory", "+io", "+pids" };

        for (size_t i = 0; i < ELEMENTSOF(controllers); i++)
                (void) write_file_at(AT_FDCWD, "/sys/fs/cgroup/cgroup.subtree_control", controllers[i],
                                     strlen(controllers[i]));
}

/* What is missing here is a nuisance for some program, no reason not to start. */
static void finish_system(void) {
        struct rlimit nofile = { NOFILE_MAX, NOFILE_MAX };
        int r;

        for (size_t i = 0; i < ELEMENTSOF(late_mounts); i++) {
                r = mount_one(&late_mounts[i]);
                if (r < 0)
                        log_warning_errno(r, "Failed to mount %s, ignoring: %m", late_mounts[i].target);
        }

        for (size_t i = 0; i < ELEMENTSOF(dev_links); i++)
                (void) symlink(dev_links[i][0], dev_links[i][1]);
        enable_controllers();
        (void) setrlimit(RLIMIT_NOFILE, &nofile);
        /* ping(8) without privileges, as on a usual host. */
        (void) write_file_at(AT_FDCWD, "/proc/sys/net/ipv4/ping_group_range", "0 2147483647", 12);

        r = network_init();
        if (r < 0)
                log_warning_errno(r, "Failed to configure the network, ignoring: %m");
}

int boot_system(BootRest *ret) {
        _cleanup_close_ int layer_fd = -EBADF, initrd_fd = -EBADF;
        int r;

        r = load_modules();
        if (r < 0)
                return r;
        r = mount_disks();
        if (r < 0)
                return r;
        r = mount_root();
        if (r < 0)
                return r;

        layer_fd = open("/layer", O_PATH | O_DIRECTORY | O_CLOEXEC);
        initrd_fd = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        r = switch_root();
        if (r < 0)
                return r;

        finish_system();
        *ret = (BootRest) { .layer_fd = TAKE_FD(layer_fd), .initrd_fd = TAKE_FD(initrd_fd) };
        return 0;
}

void boot_drop_initrd(BootRest *rest) {
        int r;

        if (rest->initrd_fd < 0)
                return;

        r = remove_tree_at(rest->initrd_fd, MODULES_DIR + 1);
        if (r < 0)
                log_warning_errno(r, "Failed to give back the memory of the initrd, ignoring: %m");
        (void) unlinkat(rest->initrd_fd, "init", 0);
        rest->initrd_fd = close_fd(rest->initrd_fd);
}

/* the end */

/* True when no child is left; those of others are ours by now. */
static bool all_ended(uint64_t wait_usec) {
        uint64_t until = now_usec(CLOCK_MONOTONIC) + wait_usec;

        for (;;) {
                pid_t pid;

                pid = waitpid(-1, NULL, WNOHANG);
                if (pid < 0 && errno == ECHILD)
                        return true;
                if (pid > 0)
                        continue;
                if (now_usec(CLOCK_MONOTONIC) >= until)
                        return false;

                (void) usleep(1000);
        }
}

void boot_poweroff(const BootRest *rest) {
        (void) kill(-1, SIGTERM);
        (void) kill(-1, SIGCONT);
        if (!all_ended(TERM_WAIT_USEC)) {
                (void) kill(-1, SIGKILL);
                (void) all_ended(TERM_WAIT_USEC);
        }

        sync();
        (void) mount(NULL, "/", NULL, MS_REMOUNT | MS_RDONLY, NULL);
        if (rest->layer_fd >= 0 && fchdir(rest->layer_fd) >= 0 &&
            mount(NULL, ".", NULL, MS_REMOUNT | MS_RDONLY, NULL) < 0)
                log_debug_errno(errno, "Failed to make the layer read-only, ignoring: %m");
        (void) tcdrain(STDERR_FILENO);
        (void) reboot(RB_POWER_OFF);
        (void) reboot(RB_AUTOBOOT);
}
