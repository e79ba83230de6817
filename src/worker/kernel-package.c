/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <dirent.h>
#include <fcntl.h>
#include <pwd.h>
#include <string.h>
#include <sys/stat.h>

#include "basic/fd.h"
#include "basic/files.h"
#include "basic/log.h"
#include "basic/strings.h"
#include "worker/kernel-package.h"
#include "worker/run.h"
#include "worker/sources.h"

#define APT_OUTPUT_MAX (1 * MIB)
#define HOST_LISTS     "/var/lib/apt/lists"

/* One view of the archive: where apt keeps its lists and caches. */
typedef struct Apt {
        const char *scratch;
        char **options; /* "-o", "Dir::…=…", … */
} Apt;

static void apt_done(Apt *a) {
        strv_free(a->options);
}

static int apt_option(Apt *a, const char *name, const char *value) {
        int r;

        r = strv_extend(&a->options, "-o");
        if (r >= 0)
                r = strv_extendf(&a->options, "%s=%s", name, value);
        return r;
}

static int apt_mkdir(const Apt *a, const char *name) {
        _cleanup_free_ char *path = strjoin(a->scratch, "/", name);

        return path ? mkdir_parents(path, 0755) : -ENOMEM;
}

/* sources.list of the host's own distribution; third-party archives are nothing to a kernel. */
static int apt_write_sources(const Apt *a, Fault *reterr) {
        _cleanup_free_ char *path = strjoin(a->scratch, "/sources.list"), *suite = NULL;
        _cleanup_strv_ char **lines = NULL;
        _cleanup_close_ int fd = -EBADF;
        int r;

        r = sources_of_host("", /* suite= */ NULL, &lines, &suite, reterr);
        if (r < 0)
                return r;

        fd = path ? open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644) : -1;
        if (fd < 0)
                return fault_set_errno(reterr, path ? errno : ENOMEM, "Failed to write the package sources");
        STRV_FOREACH(line, lines) {
                r = write_all(fd, *line, strlen(*line));
                if (r >= 0)
                        r = write_all(fd, "\n", 1);
                if (r < 0)
                        return fault_set_errno(reterr, r, "Failed to write the package sources");
        }

        return 0;
}

/* host: the lists the system has, which are read only; else our own, made with "update". */
static int apt_init(Apt *a, const char *scratch, bool host, Fault *reterr) {
        const char *const directories[] = { "apt/lists/partial", "apt/cache/archives/partial", "apt/empty" };
        const struct passwd *user = getpwuid(geteuid());
        const struct {
                const char *name, *value;
                bool own; /* value is below the scratch directory */
                bool always;
        } options[] = {
                { "Dir::Cache", "apt/cache", .own = true, .always = true },
                { "Dir::State::lists", "apt/lists", .own = true },
                { "Dir::Etc::SourceList", "sources.list", .own = true },
                { "Dir::Etc::SourceParts", "apt/empty", .own = true },
                { "Dir::State::lists", HOST_LISTS },
        };
        int r;

        *a = (Apt) { .scratch = scratch };
        for (size_t i = 0; i < ELEMENTSOF(directories); i++) {
                r = apt_mkdir(a, directories[i]);
                if (r < 0)
                        return fault_set_errno(reterr, r, "Failed to make directories for apt");
        }

        r = apt_option(a, "Debug::NoLocking", "1");
        if (r >= 0)
                r = apt_option(a, "APT::Sandbox::User", user ? user->pw_name : "root");
        for (size_t i = 0; r >= 0 && i < ELEMENTSOF(options); i++) {
                _cleanup_free_ char *value = NULL;

                if (!options[i].always && host == options[i].own)
                        continue;
                value = options[i].own ? strjoin(scratch, "/", options[i].value) : strdup(options[i].value);
                r = value ? apt_option(a, options[i].name, value) : -ENOMEM;
        }
        if (r < 0)
                return fault_set_errno(reterr, r, "Failed to set up apt");

        return host ? 0 : apt_write_sources(a, reterr);
}

static int apt_argv(const Apt *a, const char *const *words, char ***ret) {
        _cleanup_strv_ char **argv = NULL;
        int r;

        r = strv_extend(&argv, words[0]);
        STRV_FOREACH(o, a->options)
                if (r >= 0)
                        r = strv_extend(&argv, *o);
        STRV_FOREACH(w, words + 1)
                if (r >= 0)
                        r = strv_extend(&argv, *w);
        if (r < 0)
                return r;

        *ret = TAKE_PTR(argv);
        return 0;
}

static int apt_run(const Apt *a, const char *const *words, char **ret_output, Fault *reterr) {
        _cleanup_strv_ char **argv = NULL;
        int r;

        r = apt_argv(a, words, &argv);
        if (r < 0)
                return fault_set_errno(reterr, r, "Failed to run apt");

        return ret_output ? run_tool_capture(argv, APT_OUTPUT_MAX, ret_output, reterr)
                          : run_tool(argv, &(RunOptions) { .cwd = a->scratch }, reterr);
}

char* kernel_package_parse_depends(const char *text) {
        _cleanup_strv_ char **lines = strv_split(text, "\n");

        STRV_FOREACH(line, lines) {
                const char *name = startswith(*line + strspn(*line, " |"), "Depends: ");

                if (name && startswith(name, "linux-image-"))
                        return strdup(name);
        }

        return NULL;
}

/* The one *.deb in the scratch directory, its name without the suffix. */
static int find_deb(const char *scratch, char **ret_path, char **ret_name) {
        DIR *dir = opendir(scratch);
        struct dirent *entry;
        int r = -ENOENT;

        if (!dir)
                return -errno;
        while (r == -ENOENT && (entry = readdir(dir))) {
                const char *end = endswith(entry->d_name, ".deb");

                if (!end)
                        continue;
                *ret_path = strjoin(scratch, "/", entry->d_name);
                *ret_name = strndup(entry->d_name, (size_t) (end - entry->d_name));
                r = *ret_path && *ret_name ? 0 : -ENOMEM;
        }
        (void) closedir(dir);
        return r;
}

static int apt_fetch(const Apt *a, const char *package, Fault *reterr) {
        _cleanup_free_ char *text = NULL, *real = NULL;
        int r;

        r = apt_run(a, (const char *const[]) { "apt-cache", "depends", package, NULL }, &text, reterr);
        if (r < 0)
                return r;
        real = kernel_package_parse_depends(text);
        if (!real)
                return fault_set(reterr, FAULT_BACKEND_UNAVAILABLE,
                                 "The package sources of this host have no '%s'.", package);

        return apt_run(a, (const char *const[]) { "apt-get", "-q", "download", real, NULL }, NULL, reterr);
}

/* First with the lists the host has; if these are missing or too old, with fresh ones of our own. */
static int fetch(const char *package, const char *scratch, const WorkerProgress *progress, Fault *reterr) {
        _cleanup_(apt_done) Apt own = {}, host = {};
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        int r;

        worker_progress(progress, 0.1, "Downloading the kernel package");
        r = apt_init(&host, scratch, /* host= */ true, &fault);
        if (r >= 0)
                r = apt_fetch(&host, package, &fault);
        if (r >= 0)
                return 0;

        log_info("The package lists of this host do not do (%s), fetching new ones.",
                 strempty(fault.message));
        worker_progress(progress, 0.2, "Fetching the package lists");
        r = apt_init(&own, scratch, /* host= */ false, reterr);
        if (r < 0)
                return r;
        r = apt_run(&own, (const char *const[]) { "apt-get", "-q", "update", NULL }, NULL, reterr);
        if (r < 0)
                return r;
        worker_progress(progress, 0.5, "Downloading the kernel package");
        return apt_fetch(&own, package, reterr);
}

int kernel_package_fetch(const char *package, const char *scratch, const WorkerProgress *progress,
                         char **ret_root, char **ret_name, Fault *reterr) {
        _cleanup_free_ char *deb = NULL, *name = NULL, *root = strjoin(scratch, "/root");
        int r;

        if (!root)
                return fault_set_errno(reterr, -ENOMEM, "Failed to get the kernel package");
        r = fetch(package, scratch, progress, reterr);
        if (r < 0)
                return r;
        r = find_deb(scratch, &deb, &name);
        if (r < 0)
                return fault_set_errno(reterr, r, "apt-get has not downloaded the kernel package");

        worker_progress(progress, 0.8, "Unpacking the kernel package");
        r = run_tool((char *const[]) { (char *) "dpkg-deb", (char *) "--extract", deb, root, NULL }, NULL,
                     reterr);
        if (r < 0)
                return r;

        *ret_root = TAKE_PTR(root);
        *ret_name = TAKE_PTR(name);
        return 0;
}
