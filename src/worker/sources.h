/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The host's own apt sources, cut down to what belongs to its distribution: entries of the release named in
 * os-release and of its updates and security, with the distribution's own components. Third-party archives
 * stay out of templates. The result is sources.list(5) in its one-line style, which goes to mmdebstrap and
 * into the template.
 */

#include "basic/fault.h"
#include "basic/macro.h"

/*
 * Adds the fitting entries of one file to *lines (a string vector, owned by the caller). deb822: the style
 * of *.sources, else of *.list. codename: the host's release; suite: the release the template wants, put in
 * its place (often the same). Entries that do not fit or cannot be read are left out. 0 or -ENOMEM.
 */
int sources_add_text(const char *text, bool deb822, const char *codename, const char *suite, char ***lines);

/* VERSION_CODENAME of os-release text. 0, -ENOENT when it has none, -ENOMEM. */
int sources_codename(const char *os_release, char **ret);

/*
 * All fitting entries of the host below root ("" for the host itself; tests have their own). suite: NULL or
 * "" for the host's release. ret_suite: the release, owned. -ENOENT with a fault when there is no entry.
 */
int sources_of_host(const char *root, const char *suite, char ***ret_lines, char **ret_suite, Fault *reterr);
