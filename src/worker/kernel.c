/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Job "prepare-kernel". <directory>/<version>/ holds vmlinuz, vmlinux, modules.cpio, initrd and kernel.json,
 * "current" is a link to the version in use. An initrd is modules.cpio and behind it an archive with the
 * agent, so that a new agent needs no package.
 */

#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "basic/fd.h"
#include "basic/files.h"
#include "basic/log.h"
#include "basic/sha256.h"
#include "basic/strings.h"
#include "shared/json-field.h"
#include "worker/cpio.h"
#include "worker/image.h"
#include "worker/kernel-image.h"
#include "worker/kernel-modules.h"
#include "worker/kernel-package.h"
#include "worker/worker.h"

#define KERNEL_PACKAGE  "linux-image-cloud-amd64"
#define KERNEL_JSON_MAX (64 * KIB)
#define KERNEL_CURRENT  "current"
#define AGENT_BYTES_MAX (64 * MIB)
#define CPIO_BYTES_MAX  (256 * MIB)
#define VERSION_LEN_MAX 128U

/* What the agent needs before it has a root file system, and the network; dependencies come by themselves.
 */
static const char *const kernel_modules[] = {
        "virtio_ring", "virtio",         "virtio_mmio", "virtio_blk", "failover", "net_failover",
        "virtio_net",  "virtio_console", "erofs",       "overlay",    NULL,
};

typedef struct Kernel {
        char *directory, *agent, *package;
        bool refresh;
        char *version; /* of <directory>/current; NULL: none yet */
        char *path;    /* <directory>/<version> */
        char agent_sha256[SHA256_HEX_LEN + 1];
        bool changed;
        const WorkerProgress *progress;
} Kernel;

static void kernel_done(Kernel *k) {
        free(k->directory);
        free(k->agent);
        free(k->package);
        free(k->version);
        free(k->path);
}

static void filep(FILE **f) {
        if (*f)
                (void) fclose(*f);
}

static int kernel_parse(json_t *request, Kernel *k, Fault *reterr) {
        static const JsonField fields[] = { { "directory", json_parse_string, offsetof(Kernel, directory),
                                              JSON_FIELD_MANDATORY | JSON_FIELD_NON_EMPTY },
                                            { "agent", json_parse_string, offsetof(Kernel, agent),
                                              JSON_FIELD_MANDATORY | JSON_FIELD_NON_EMPTY },
                                            { "package", json_parse_string, offsetof(Kernel, package),
                                              JSON_FIELD_NON_EMPTY },
                                            { "refresh", json_parse_bool, offsetof(Kernel, refresh) },
                                            {} };
        int r;

        r = json_dispatch(request, fields, k, reterr);
        if (r < 0)
                return r;
        if (!k->package && free_and_strdup(&k->package, KERNEL_PACKAGE) < 0)
                return fault_set_errno(reterr, -ENOMEM, "Failed to read the request");
        if (k->directory[0] != '/' || k->agent[0] != '/')
                return fault_set(reterr, FAULT_INVALID_ARGS, "directory, agent: expected absolute paths.");
        if (k->package[0] == '-')
                return fault_set(reterr, FAULT_INVALID_ARGS, "package: expected the name of a package.");
        return 0;
}

static bool version_is_valid(const char *s) {
        return !isempty(s) && strlen(s) <= VERSION_LEN_MAX && s[0] != '.' && !strchr(s, '/');
}

static int kernel_set_version(Kernel *k, const char *version) {
        _cleanup_free_ char *path = strjoin(k->directory, "/", version);

        if (!path || free_and_strdup(&k->version, version) < 0)
                return -ENOMEM;

        free(k->path);
        k->path = TAKE_PTR(path);
        return 0;
}

/* Follows "current" to a complete version. 0 also when there is none. */
static int kernel_find_current(Kernel *k) {
        _cleanup_free_ char *link = strjoin(k->directory, "/" KERNEL_CURRENT), *file = NULL;
        char version[VERSION_LEN_MAX + 2];
        ssize_t n;

        n = link ? readlink(link, version, sizeof(version) - 1) : -1;
        if (n < 0)
                return link ? 0 : -ENOMEM;
        version[n] = '\0';
        if (!version_is_valid(version))
                return 0;

        file = strjoin(link, "/kernel.json");
        if (!file)
                return -ENOMEM;
        return access(file, F_OK) < 0 ? 0 : kernel_set_version(k, version);
}

static int kernel_hash_agent(Kernel *k, Fault *reterr) {
        _cleanup_close_ int fd = open(k->agent, O_RDONLY | O_CLOEXEC);
        uint8_t digest[SHA256_LEN];
        int r;

        r = fd < 0 ? -errno : sha256_fd(fd, digest);
        if (r < 0)
                return fault_set_errno(reterr, r, "Failed to read the agent '%s'", k->agent);

        hex_encode(digest, sizeof(digest), k->agent_sha256);
        return 0;
}

/* files of a version */

static int open_new(const char *directory, const char *name, FILE **ret) {
        _cleanup_free_ char *path = strjoin(directory, "/", name);
        _cleanup_close_ int fd = -EBADF;

        if (!path)
                return -ENOMEM;
        fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
        if (fd < 0)
                return -errno;
        *ret = fdopen(fd, "we");
        if (!*ret)
                return -errno;
        (void) TAKE_FD(fd);
        return 0;
}

static int file_sync(FILE *f) {
        return fflush(f) != 0 ? -EIO : fsync(fileno(f)) < 0 ? -errno : 0;
}

static int write_modules(const char *modules, const char *scratch, const char *directory, Fault *reterr) {
        _cleanup_(filep) FILE *f = NULL;
        Cpio cpio;
        int r;

        r = open_new(directory, "modules.cpio", &f);
        if (r < 0)
                return fault_set_errno(reterr, r, "Failed to make modules.cpio");

        cpio = CPIO(f);
        r = modules_archive(modules, kernel_modules, scratch, &cpio, reterr);
        if (r < 0)
                return r;
        r = cpio_finish(&cpio);
        if (r >= 0)
                r = file_sync(f);
        if (r < 0)
                return fault_set_errno(reterr, r, "Failed to write modules.cpio");
        return 0;
}

/* modules.cpio and the agent, into <directory>/<name>. */
static int write_initrd(const Kernel *k, const char *directory, const char *name, Fault *reterr) {
        _cleanup_free_ char *modules_path = strjoin(directory, "/modules.cpio"), *modules = NULL,
                            *agent = NULL;
        _cleanup_(filep) FILE *f = NULL;
        size_t n_modules = 0, n_agent = 0;
        Cpio cpio;
        int r;

        r = modules_path ? read_file_at(AT_FDCWD, modules_path, CPIO_BYTES_MAX, &modules, &n_modules)
                         : -ENOMEM;
        if (r >= 0)
                r = read_file_at(AT_FDCWD, k->agent, AGENT_BYTES_MAX, &agent, &n_agent);
        if (r >= 0)
                r = open_new(directory, name, &f);
        if (r < 0)
                return fault_set_errno(reterr, r, "Failed to make the initrd");

        cpio = CPIO(f);
        r = fwrite(modules, 1, n_modules, f) == n_modules ? 0 : -EIO;
        if (r >= 0)
                r = cpio_add_directory(&cpio, "dev", 0755);
        if (r >= 0)
                r = cpio_add_device(&cpio, "dev/console", 0600, 5, 1);
        if (r >= 0)
                r = cpio_add_file(&cpio, "init", 0755, agent, n_agent);
        if (r >= 0)
                r = cpio_finish(&cpio);
        if (r >= 0)
                r = file_sync(f);
        if (r < 0)
                return fault_set_errno(reterr, r, "Failed to write the initrd");
        return 0;
}

/* Last of all: a version with it is complete. */
static int write_json(const Kernel *k, const char *directory, const char *version, const char *package,
                      Fault *reterr) {
        _cleanup_json_ json_t *object = NULL;
        _cleanup_free_ char *text = NULL;
        _cleanup_close_ int fd = -EBADF;
        int r;

        object = json_pack("{s:s, s:s, s:s}", "version", version, "package", package, "agent_sha256",
                           k->agent_sha256);
        text = object ? json_dumps(object, JSON_INDENT(2)) : NULL;
        fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        r = !text    ? -ENOMEM
            : fd < 0 ? -errno
                     : write_file_atomic_at(fd, "kernel.json", text, strlen(text), 0644);
        if (r < 0)
                return fault_set_errno(reterr, r, "Failed to write kernel.json");
        return 0;
}

static int copy_file(const char *from, const char *directory, const char *name, Fault *reterr) {
        _cleanup_close_ int fd = open(from, O_RDONLY | O_CLOEXEC);
        _cleanup_(filep) FILE *f = NULL;
        int r;

        r = fd < 0 ? -errno : open_new(directory, name, &f);
        if (r >= 0)
                r = copy_sparse(fd, fileno(f));
        if (r >= 0)
                r = file_sync(f);
        if (r < 0)
                return fault_set_errno(reterr, r, "Failed to copy '%s'", from);
        return 0;
}

/* a new version */

/* The one directory below <root>/lib/modules or <root>/usr/lib/modules. */
static int find_version(const char *root, char **ret_version, char **ret_modules) {
        static const char *const places[] = { "/lib/modules", "/usr/lib/modules" };

        for (size_t i = 0; i < ELEMENTSOF(places); i++) {
                _cleanup_free_ char *place = strjoin(root, places[i]), *version = NULL;
                struct dirent *entry;
                DIR *dir;

                dir = place ? opendir(place) : NULL;
                if (!dir)
                        continue;
                while (!version && (entry = readdir(dir)))
                        if (version_is_valid(entry->d_name))
                                version = strdup(entry->d_name);
                (void) closedir(dir);
                if (!version)
                        continue;

                *ret_modules = strjoin(place, "/", version);
                *ret_version = TAKE_PTR(version);
                return *ret_modules ? 0 : -ENOMEM;
        }

        return -ENOENT;
}

static int link_current(const Kernel *k, Fault *reterr) {
        _cleanup_free_ char *link = strjoin(k->directory, "/" KERNEL_CURRENT),
                            *temporary = strjoin(k->directory, "/.tmp-current");
        _cleanup_close_ int fd = open(k->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        int r;

        if (!link || !temporary)
                return fault_set_errno(reterr, -ENOMEM, "Failed to make the link to the kernel");

        (void) unlink(temporary);
        r = symlink(k->version, temporary) < 0 || rename(temporary, link) < 0 ? -errno : 0;
        if (r >= 0 && fd >= 0)
                r = fsync_dir_of(fd);
        if (r < 0)
                return fault_set_errno(reterr, r, "Failed to make '%s'", link);
        return 0;
}

/* The complete directory takes its place; one of the same name is set aside first, capsules have its files
 * open or bound. */
static int publish(Kernel *k, const char *ready, const char *version, const char *scratch, Fault *reterr) {
        _cleanup_free_ char *old = strjoin(scratch, "/old");
        int r;

        r = old ? kernel_set_version(k, version) : -ENOMEM;
        if (r >= 0 && rename(k->path, old) < 0 && errno != ENOENT)
                r = -errno;
        if (r >= 0 && rename(ready, k->path) < 0)
                r = -errno;
        if (r < 0)
                return fault_set_errno(reterr, r, "Failed to put the kernel in its place");

        k->changed = true;
        return link_current(k, reterr);
}

static int fill(Kernel *k, const char *root, const char *modules, const char *version, const char *package,
                const Scratch *work, const char *ready, Fault *reterr) {
        _cleanup_free_ char *vmlinuz = strjoin(root, "/boot/vmlinuz-", version),
                            *vmlinux = strjoin(ready, "/vmlinux");
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        int r;

        if (!vmlinuz || !vmlinux)
                return fault_set_errno(reterr, -ENOMEM, "Failed to prepare the kernel");

        r = copy_file(vmlinuz, ready, "vmlinuz", reterr);
        if (r < 0)
                return r;
        worker_progress(k->progress, 0.8, "Unpacking the kernel");
        if (kernel_unpack(vmlinuz, vmlinux, work->path, &fault) < 0) {
                log_warning("Capsules will boot the packed kernel, slower: %s", fault.message);
                (void) unlink(vmlinux);
        }

        worker_progress(k->progress, 0.9, "Making the initrd");
        r = write_modules(modules, work->path, ready, reterr);
        if (r >= 0)
                r = write_initrd(k, ready, "initrd", reterr);
        if (r >= 0)
                r = write_json(k, ready, version, package, reterr);
        return r;
}

static int prepare_new(Kernel *k, Fault *reterr) {
        _cleanup_free_ char *root = NULL, *package = NULL, *version = NULL, *modules = NULL, *ready = NULL;
        _cleanup_(scratch_done) Scratch work = SCRATCH_NULL;
        WorkerProgress part = worker_progress_part(k->progress, 0, 0.75);
        int r;

        r = scratch_make(k->directory, &work, reterr);
        if (r < 0)
                return r;
        r = kernel_package_fetch(k->package, work.path, &part, &root, &package, reterr);
        if (r < 0)
                return r;
        r = find_version(root, &version, &modules);
        if (r < 0)
                return fault_set_errno(reterr, r, "The kernel package has no modules");

        ready = strjoin(work.path, "/ready");
        if (!ready || mkdir(ready, 0755) < 0)
                return fault_set_errno(reterr, ready ? errno : ENOMEM, "Failed to prepare the kernel");
        r = fill(k, root, modules, version, package, &work, ready, reterr);
        if (r < 0)
                return r;
        return publish(k, ready, version, work.path, reterr);
}

/* an agent newer than the initrd */

static int refresh_initrd(Kernel *k, Fault *reterr) {
        _cleanup_free_ char *file = strjoin(k->path, "/kernel.json"), *text = NULL, *initrd = NULL,
                            *temporary = NULL;
        const char *package = "", *sha256 = "";
        _cleanup_json_ json_t *object = NULL;
        size_t n;
        int r;

        r = file ? read_file_at(AT_FDCWD, file, KERNEL_JSON_MAX, &text, &n) : -ENOMEM;
        if (r < 0)
                return fault_set_errno(reterr, r, "Failed to read kernel.json");
        r = json_parse_text(text, n, &object, reterr);
        if (r < 0)
                return r;
        (void) json_unpack(object, "{s:s, s:s}", "package", &package, "agent_sha256", &sha256);
        if (streq(sha256, k->agent_sha256))
                return 0;

        worker_progress(k->progress, 0.5, "Making the initrd");
        initrd = strjoin(k->path, "/initrd");
        temporary = strjoin(k->path, "/.tmp-initrd");
        if (!initrd || !temporary)
                return fault_set_errno(reterr, -ENOMEM, "Failed to make the initrd");

        (void) unlink(temporary);
        r = write_initrd(k, k->path, ".tmp-initrd", reterr);
        if (r < 0)
                return r;
        if (rename(temporary, initrd) < 0)
                return fault_set_errno(reterr, errno, "Failed to put the initrd in its place");

        k->changed = true;
        return write_json(k, k->path, k->version, package, reterr);
}

/* result */

static int kernel_result(const Kernel *k, json_t **ret, Fault *reterr) {
        _cleanup_free_ char *vmlinux = strjoin(k->path, "/vmlinux"), *vmlinuz = strjoin(k->path, "/vmlinuz");
        _cleanup_free_ char *initrd = strjoin(k->path, "/initrd");

        if (vmlinux && vmlinuz && initrd)
                *ret = json_pack("{s:s, s:s, s:s, s:s, s:b}", "version", k->version, "path", k->path,
                                 "kernel", access(vmlinux, F_OK) >= 0 ? vmlinux : vmlinuz, "initrd", initrd,
                                 "changed", k->changed);
        else
                *ret = NULL;
        return *ret ? 0 : fault_set_errno(reterr, -ENOMEM, "Failed to tell the result");
}

int worker_prepare_kernel(json_t *request, const WorkerProgress *progress, json_t **ret, Fault *reterr) {
        _cleanup_(kernel_done) Kernel k = { .progress = progress };
        int r;

        r = kernel_parse(request, &k, reterr);
        if (r < 0)
                return r;
        r = mkdir_parents(k.directory, 0755);
        if (r < 0)
                return fault_set_errno(reterr, r, "Failed to make '%s'", k.directory);
        r = kernel_hash_agent(&k, reterr);
        if (r < 0)
                return r;
        r = kernel_find_current(&k);
        if (r < 0)
                return fault_set_errno(reterr, r, "Failed to look for a kernel");

        r = k.version && !k.refresh ? refresh_initrd(&k, reterr) : prepare_new(&k, reterr);
        if (r < 0)
                return r;

        worker_progress(progress, 1, "Done");
        return kernel_result(&k, ret, reterr);
}
