/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * mmdebstrap does the work: apt checks the signatures, dpkg unpacks and configures. --mode=root is right
 * here, because we are root in a user namespace of our own. What a template must not carry (identity, the
 * host's proxy, package lists) is removed afterwards; what it needs to be used with apt (sources, the host's
 * checks of dates) stays.
 */

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>

#include "basic/fd.h"
#include "basic/files.h"
#include "basic/limits.h"
#include "basic/log.h"
#include "basic/strings.h"
#include "shared/json-field.h"
#include "worker/build.h"
#include "worker/image.h"
#include "worker/run.h"
#include "worker/sources.h"

/* For what a package's script stamps (the day of the last password change): the same in every build, and
 * long ago. */
#define BUILD_EPOCH      "1577836800"
#define APT_CONFIG_MAX   (1 * MIB)
#define PACKAGE_LIST_MAX (256 * KIB)
#define APT_DROPIN       "90wrenn-host"

typedef struct Build {
        char *directory;
        char *scratch;
        char *suite;
        char *variant;
        char *default_user;
        char *hostname;
        char *compression;
        char **packages;
        char **exclude_paths;
        char **include_paths;

        int64_t started_sec;
        Scratch work;
        char *root; /* the tree */
        char **sources;
        char **apt_options;
        char **apt_kept; /* of these, what the guest needs as well */
} Build;

static void build_done(Build *b) {
        scratch_done(&b->work);
        free(b->directory);
        free(b->scratch);
        free(b->suite);
        free(b->variant);
        free(b->default_user);
        free(b->hostname);
        free(b->compression);
        strv_free(b->packages);
        strv_free(b->exclude_paths);
        strv_free(b->include_paths);
        free(b->root);
        strv_free(b->sources);
        strv_free(b->apt_options);
        strv_free(b->apt_kept);
}

/* What apt would take for an option or a file is no package. */
static bool package_is_valid(const char *s) {
        return *s != '\0' && *s != '-' && *s != '.' &&
               s[strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+.:=~-_")] == '\0';
}

static int build_parse(json_t *request, Build *b, Fault *reterr) {
        static const JsonField fields[] = {
                { "directory", json_parse_string, offsetof(Build, directory),
                  .flags = JSON_FIELD_MANDATORY | JSON_FIELD_NON_EMPTY },
                { "scratch", json_parse_string, offsetof(Build, scratch), .flags = JSON_FIELD_NON_EMPTY },
                { "suite", json_parse_string, offsetof(Build, suite) },
                { "variant", json_parse_string, offsetof(Build, variant), .valid = name_is_valid,
                  .expected = "a variant of mmdebstrap" },
                { "default_user", json_parse_string, offsetof(Build, default_user), .valid = name_is_valid,
                  .expected = "a user name" },
                { "hostname", json_parse_string, offsetof(Build, hostname), .valid = name_is_valid,
                  .expected = "a host name" },
                { "compression", json_parse_string, offsetof(Build, compression) },
                { "packages", json_parse_strv, offsetof(Build, packages), .max = TEMPLATE_PACKAGES_MAX },
                { "exclude_paths", json_parse_strv, offsetof(Build, exclude_paths),
                  .max = TEMPLATE_PATHS_MAX },
                { "include_paths", json_parse_strv, offsetof(Build, include_paths),
                  .max = TEMPLATE_PATHS_MAX },
                {}
        };
        const struct {
                char **field;
                const char *value;
        } defaults[] = {
                { &b->scratch, "/var/tmp" }, { &b->variant, "minbase" },  { &b->default_user, "root" },
                { &b->hostname, "capsule" }, { &b->compression, "none" },
        };
        int r;

        r = json_dispatch(request, fields, b, reterr);
        if (r < 0)
                return r;

        for (size_t i = 0; i < ELEMENTSOF(defaults); i++)
                if (!*defaults[i].field && free_and_strdup(defaults[i].field, defaults[i].value) < 0)
                        return fault_set_errno(reterr, -ENOMEM, "Failed to read the request");
        if (!isempty(b->suite) && !name_is_valid(b->suite))
                return fault_set(reterr, FAULT_INVALID_ARGS, "suite: expected the name of a release.");
        STRV_FOREACH(p, b->packages)
                if (!package_is_valid(*p))
                        return fault_set(reterr, FAULT_INVALID_ARGS, "packages: '%s' is no package name.",
                                         *p);
        return 0;
}

/* One line of "apt-config dump": kept when it says how the host reaches or checks its archives. */
static int apt_option(Build *b, char *line) {
        static const char *const ours[] = {
                "Acquire::http",          "Acquire::https",   "Acquire::Check-",
                "Acquire::Max-ValidTime", "Acquire::Retries", "Acquire::ForceIPv"
        };
        char *end = strrchr(line, ';');
        bool fits = false;
        int r;

        for (size_t i = 0; i < ELEMENTSOF(ours); i++)
                fits = fits || startswith(line, ours[i]);
        if (!fits || !end || end - line < 3 || strncmp(end - 3, " \"\"", 3) == 0)
                return 0;

        *end = '\0';
        r = strv_extend(&b->apt_options, line);
        if (r >= 0 && !startswith(line, "Acquire::http"))
                r = strv_extend(&b->apt_kept, line);
        return r;
}

static int read_apt_config(Build *b, Fault *reterr) {
        _cleanup_free_ char *text = NULL;
        _cleanup_strv_ char **lines = NULL;
        int r;

        r = run_tool_capture((char *[]) { (char *) "apt-config", (char *) "dump", NULL }, APT_CONFIG_MAX,
                             &text, reterr);
        if (r < 0)
                return r;

        lines = strv_split(text, "\n");
        STRV_FOREACH(line, lines) {
                r = apt_option(b, *line);
                if (r < 0)
                        return fault_set_errno(reterr, r, "Failed to read apt's configuration");
        }
        return 0;
}

/* Adds <prefix><value> for every value. */
static int add_options(char ***argv, const char *prefix, char *const *values) {
        int r;

        STRV_FOREACH(v, values) {
                r = strv_extendf(argv, "%s%s", prefix, *v);
                if (r < 0)
                        return r;
        }
        return 0;
}

static int build_argv(const Build *b, char ***ret) {
        /* mmdebstrap tells its stages on stderr, our line callback hears stdout */
        static const char *const fixed[] = { "sh",
                                             "-c",
                                             "exec \"$@\" 2>&1",
                                             "sh",
                                             "mmdebstrap",
                                             "--mode=root",
                                             "--format=directory",
                                             "--verbose",
                                             "--skip=output/dev",
                                             "--dpkgopt=force-unsafe-io",
                                             NULL };
        char *const variant[] = { b->variant, NULL };
        char *const target[] = { b->suite, b->root, NULL };
        const struct {
                const char *prefix;
                char *const *values;
        } groups[] = {
                { "", (char *const *) fixed },
                { "--variant=", variant },
                { "--include=", b->packages },
                { "--aptopt=", b->apt_options },
                { "--dpkgopt=path-exclude=", b->exclude_paths },
                { "--dpkgopt=path-include=", b->include_paths },
                { "", target },
                { "", b->sources },
        };
        _cleanup_strv_ char **argv = NULL;
        int r;

        for (size_t i = 0; i < ELEMENTSOF(groups); i++) {
                r = add_options(&argv, groups[i].prefix, groups[i].values);
                if (r < 0)
                        return r;
        }

        *ret = TAKE_PTR(argv);
        return 0;
}

typedef struct BuildOutput {
        BuildProgress position;
        char *error; /* first line that tells of one */
} BuildOutput;

static void on_line(const char *line, void *userdata) {
        BuildOutput *o = userdata;
        const char *error = startswith(line, "E: ");

        log_info("%s", line);
        if (error && !o->error)
                o->error = strdup(error);
        build_progress_line(&o->position, line);
}

static int run_mmdebstrap(char *const *argv, const RunOptions *options, const BuildOutput *o,
                          Fault *reterr) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        int r;

        r = run_tool(argv, options, &fault);
        if (r >= 0)
                return 0;
        if (fault.code == FAULT_BACKEND_UNAVAILABLE)
                return fault_set(reterr, FAULT_BACKEND_UNAVAILABLE,
                                 "mmdebstrap is not installed. Remedy: apt install mmdebstrap");
        return fault_set(reterr, FAULT_INTERNAL, "mmdebstrap failed: %s", o->error ?: fault.message);
}

static int build_tree(Build *b, const WorkerProgress *progress, Fault *reterr) {
        BuildOutput output = { .position.progress = progress };
        _cleanup_strv_ char **argv = NULL;
        _cleanup_free_ char *tmpdir = NULL;
        int r;

        r = build_argv(b, &argv);
        tmpdir = strjoin("TMPDIR=", b->work.path);
        if (r < 0 || !tmpdir)
                return fault_set_errno(reterr, -ENOMEM, "Failed to start mmdebstrap");

        r = run_mmdebstrap(argv,
                           &(RunOptions) {
                                           .cwd = b->work.path,
                                           .env = (char *[]) { tmpdir,
                                                               (char *) "SOURCE_DATE_EPOCH=" BUILD_EPOCH,
                                                               (char *) "HOME=/root",
                                                               (char *) "DEBIAN_FRONTEND=noninteractive",
                                                               NULL },
                                           .on_line = on_line,
                                           .userdata = &output,
                           },
                           &output, reterr);
        free(output.error);
        return r;
}

/* Replaces a file of the tree; never writes through a link that a package left there. */
static int put_file(int root_fd, const char *path, const char *text, mode_t mode) {
        _cleanup_close_ int fd = -EBADF;

        if (unlinkat(root_fd, path, 0) < 0 && errno != ENOENT)
                return -errno;
        fd = open_beneath(root_fd, path, O_WRONLY | O_CREAT | O_EXCL, mode);
        if (fd < 0)
                return fd;
        if (fchmod(fd, mode) < 0)
                return -errno;
        return write_all(fd, text, strlen(text));
}

static int remove_file(int root_fd, const char *path) {
        return unlinkat(root_fd, path, 0) < 0 && errno != ENOENT ? -errno : 0;
}

/* The settings of apt the guest shares with the host, instead of those of the build. */
static int put_apt_config(const Build *b, int root_fd) {
        _cleanup_free_ char *text = strdup("");
        int r;

        r = remove_file(root_fd, "etc/apt/apt.conf.d/99mmdebstrap");
        if (r < 0 || !b->apt_kept)
                return r;

        STRV_FOREACH(o, b->apt_kept) {
                char *longer = text ? strjoin(text, *o, ";\n") : NULL;

                free(text);
                text = longer;
        }
        return text ? put_file(root_fd, "etc/apt/apt.conf.d/" APT_DROPIN, text, 0644) : -ENOMEM;
}

/* Nothing in an image may be the same secret or identity in every capsule. */
static int remove_identity(int root_fd) {
        static const char *const names[] = { "rsa", "dsa", "ecdsa", "ed25519" };
        char path[64];
        int r = 0;

        for (size_t i = 0; r >= 0 && i < ELEMENTSOF(names); i++) {
                (void) snprintf(path, sizeof(path), "etc/ssh/ssh_host_%s_key", names[i]);
                r = remove_file(root_fd, path);
                (void) snprintf(path, sizeof(path), "etc/ssh/ssh_host_%s_key.pub", names[i]);
                if (r >= 0)
                        r = remove_file(root_fd, path);
        }
        if (r >= 0)
                r = remove_file(root_fd, "var/lib/dbus/machine-id");
        if (r >= 0)
                r = remove_file(root_fd, "var/lib/systemd/random-seed");
        return r < 0 ? r : put_file(root_fd, "etc/machine-id", "", 0444);
}

/* The default user and /home/user, the path that examples use. */
static int put_user(const Build *b, int root_fd, Fault *reterr) {
        _cleanup_free_ char *sudoers = NULL;
        bool is_root = streq(b->default_user, "root");
        int r;

        if (!is_root) {
                r = run_tool((char *[]) { (char *) "chroot", b->root, (char *) "useradd",
                                          (char *) "--create-home", (char *) "--shell", (char *) "/bin/bash",
                                          b->default_user, NULL },
                             &(RunOptions) { .env = (char *[]) { (char *) "SOURCE_DATE_EPOCH=" BUILD_EPOCH,
                                                                 NULL } },
                             reterr);
                if (r < 0)
                        return r;
                sudoers = strjoin(b->default_user, " ALL=(ALL:ALL) NOPASSWD:ALL\n");
                if (!sudoers)
                        return fault_set_errno(reterr, -ENOMEM, "Failed to make the default user");
                r = put_file(root_fd, "etc/sudoers.d/90-wrenn", sudoers, 0440);
                if (r < 0 && r != -ENOENT)
                        return fault_set_errno(reterr, r, "Failed to make the default user");
        }

        if (!streq(b->default_user, "user") &&
            symlinkat(is_root ? "../root" : b->default_user, root_fd, "home/user") < 0 && errno != EEXIST)
                return fault_set_errno(reterr, -errno, "Failed to make /home/user");
        return 0;
}

static int finish_tree(const Build *b, Fault *reterr) {
        _cleanup_free_ char *hostname = strjoin(b->hostname, "\n");
        _cleanup_close_ int root_fd = open(b->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        int r;

        if (root_fd < 0 || !hostname)
                return fault_set_errno(reterr, hostname ? -errno : -ENOMEM, "Failed to open the tree");

        r = put_user(b, root_fd, reterr);
        if (r < 0)
                return r;

        r = put_apt_config(b, root_fd);
        if (r >= 0)
                r = remove_identity(root_fd);
        if (r >= 0)
                r = put_file(root_fd, "etc/hostname", hostname, 0644);
        if (r >= 0)
                r = put_file(root_fd, "etc/resolv.conf", "", 0644);
        if (r < 0)
                return fault_set_errno(reterr, r, "Failed to finish the tree");
        return 0;
}

/* Names and versions of what is in the tree. */
static int list_packages(const Build *b, json_t *result, Fault *reterr) {
        _cleanup_free_ char *text = NULL, *admindir = NULL;
        _cleanup_strv_ char **lines = NULL;
        json_t *packages;
        int r;

        admindir = strjoin("--admindir=", b->root, "/var/lib/dpkg");
        if (!admindir)
                return fault_set_errno(reterr, -ENOMEM, "Failed to list the packages");
        r = run_tool_capture((char *[]) { (char *) "dpkg-query", admindir, (char *) "--show",
                                          (char *) "--showformat=${Package}=${Version}\\n", NULL },
                             PACKAGE_LIST_MAX, &text, reterr);
        if (r < 0)
                return r;

        lines = strv_split(text, "\n");
        packages = json_from_strv(lines);
        if (!packages || json_object_set_new(result, "packages", packages) < 0 ||
            json_object_set_new(result, "suite", json_string(b->suite)) < 0)
                return fault_set_errno(reterr, -ENOMEM, "Failed to list the packages");
        return 0;
}

int worker_build_template(json_t *request, const WorkerProgress *progress, json_t **ret, Fault *reterr) {
        _cleanup_(build_done) Build b = { .started_sec = time(NULL), .work = SCRATCH_NULL };
        WorkerProgress tree = worker_progress_part(progress, 0.01, 0.92);
        _cleanup_json_ json_t *result = NULL;
        char *suite = NULL;
        int r;

        r = build_parse(request, &b, reterr);
        if (r < 0)
                return r;

        worker_progress(progress, 0, "Reading the host's package sources");
        r = sources_of_host("", b.suite, &b.sources, &suite, reterr);
        if (r < 0)
                return r;
        free(b.suite);
        b.suite = suite;
        r = read_apt_config(&b, reterr);
        if (r >= 0)
                r = scratch_make(b.scratch, &b.work, reterr);
        if (r < 0)
                return r;
        b.root = strjoin(b.work.path, "/root");
        if (!b.root)
                return fault_set_errno(reterr, -ENOMEM, "Failed to make the tree");

        r = build_tree(&b, &tree, reterr);
        if (r >= 0)
                r = finish_tree(&b, reterr);
        if (r < 0)
                return r;

        worker_progress(progress, 0.92, "Packing the image");
        r = image_pack(b.root, b.directory, b.compression, b.started_sec, &result, reterr);
        if (r >= 0)
                r = list_packages(&b, result, reterr);
        if (r < 0)
                return r;

        worker_progress(progress, 0.98, "Cleaning up");
        *ret = TAKE_PTR(result);
        return 0;
}
