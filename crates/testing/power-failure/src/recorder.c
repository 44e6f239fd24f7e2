/* Records what a process changes in a folder tree, in the order in which it happened. Loaded with LD_PRELOAD.
 *
 * Each record is a line `KIND INODE NUMBER LENGTH`, followed by LENGTH bytes. Paths are relative to the tree.
 * One call at a time: a record is written before the next call begins. A call that is not known here is found by
 * the reader, which compares sizes and the tree at the end.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
static int records = -1;
static const char *tree;
static long left;

typedef char Path[2 * PATH_MAX];

static void record(const char *kind, unsigned long inode, long number, const struct iovec *parts, int count, size_t size) {
  char line[100];
  struct iovec all[2 + 16] = {{line, 0}};
  all[0].iov_len = snprintf(line, sizeof line, "%s %lu %ld %zu\n", kind, inode, number, size);
  int used = 1;
  for (int i = 0; i < count && size > 0; i++) {
    size_t part = parts[i].iov_len < size ? parts[i].iov_len : size;
    if (used == 18) abort();
    all[used++] = (struct iovec){parts[i].iov_base, part};
    size -= part;
  }
  /* One call, since the process appends its events to the same file. */
  if (syscall(SYS_writev, records, all, used) < 0) abort();
  if (left > 0 && --left == 0) kill(getpid(), SIGKILL);
}

static void record_text(const char *kind, unsigned long inode, long number, const char *text) {
  struct iovec part = {(void *)text, strlen(text)};
  record(kind, inode, number, &part, 1, part.iov_len);
}

__attribute__((constructor)) static void start(void) {
  const char *file = getenv("POWER_FAILURE_RECORDS");
  const char *limit = getenv("POWER_FAILURE_KILL_AFTER");
  struct stat root;
  tree = getenv("POWER_FAILURE_TREE");
  left = limit ? atol(limit) : 0;
  if (!file || !tree || stat(tree, &root) != 0) abort();
  records = syscall(SYS_openat, AT_FDCWD, file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (records < 0) abort();
  record_text("start", root.st_ino, 0, "");
}

/* The path below the tree, or NULL for one elsewhere. */
static const char *below(const char *path) {
  size_t length = strlen(tree);
  if (strncmp(path, tree, length) != 0) return NULL;
  return path[length] == '/' ? path + length + 1 : path[length] == 0 ? path + length : NULL;
}

static const char *resolve(int folder, const char *path, Path whole) {
  if (path[0] == '/') return below(path);
  char link[40] = "/proc/self/cwd";
  if (folder != AT_FDCWD) snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
  ssize_t length = readlink(link, whole, PATH_MAX);
  if (length < 0) return NULL;
  whole[length] = '/';
  strncpy(whole + length + 1, path, PATH_MAX - 1);
  return below(whole);
}

/* The status of an open file or folder of the tree. */
static int is_below(int file, struct stat *status) {
  Path whole = {0};
  char link[40];
  snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  return readlink(link, whole, PATH_MAX) > 0 && below(whole) && fstat(file, status) == 0;
}

static int do_open(int folder, const char *path, int flags, mode_t mode) {
  Path whole = {0};
  pthread_mutex_lock(&turn);
  int file = syscall(SYS_openat, folder, path, flags, mode);
  struct stat status;
  if (file >= 0 && (flags & (O_CREAT | O_TRUNC)) && is_below(file, &status))
    record_text(flags & O_TRUNC ? "truncating-open" : "open", status.st_ino, 0, resolve(folder, path, whole));
  pthread_mutex_unlock(&turn);
  return file;
}

#define MODE \
  va_list list; \
  va_start(list, flags); \
  mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(list, mode_t) : 0; \
  va_end(list);
int open(const char *path, int flags, ...) { MODE return do_open(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE return do_open(AT_FDCWD, path, flags, mode); }
int openat(int folder, const char *path, int flags, ...) { MODE return do_open(folder, path, flags, mode); }
int openat64(int folder, const char *path, int flags, ...) { MODE return do_open(folder, path, flags, mode); }
int creat(const char *path, mode_t mode) { return do_open(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }

static ssize_t written(int file, ssize_t size, const struct iovec *parts, int count, off64_t end) {
  struct stat status;
  if (size > 0 && is_below(file, &status))
    record("write", status.st_ino, (end >= 0 ? end : lseek(file, 0, SEEK_CUR)) - size, parts, count, size);
  pthread_mutex_unlock(&turn);
  return size;
}

ssize_t write(int file, const void *bytes, size_t size) {
  pthread_mutex_lock(&turn);
  struct iovec part = {(void *)bytes, size};
  return written(file, syscall(SYS_write, file, bytes, size), &part, 1, -1);
}

ssize_t writev(int file, const struct iovec *parts, int count) {
  pthread_mutex_lock(&turn);
  return written(file, syscall(SYS_writev, file, parts, count), parts, count, -1);
}

ssize_t pwrite64(int file, const void *bytes, size_t size, off64_t offset) {
  pthread_mutex_lock(&turn);
  struct iovec part = {(void *)bytes, size};
  ssize_t done = syscall(SYS_pwrite64, file, bytes, size, offset);
  return written(file, done, &part, 1, offset + done);
}
ssize_t pwrite(int file, const void *bytes, size_t size, off_t offset) { return pwrite64(file, bytes, size, offset); }

/* Records a call on an open file that has succeeded. */
static int on_file(const char *kind, int file, int failed, long number) {
  struct stat status;
  if (!failed && is_below(file, &status)) record_text(kind, status.st_ino, number < 0 ? status.st_size : number, "");
  pthread_mutex_unlock(&turn);
  return failed;
}

int ftruncate64(int file, off64_t size) {
  pthread_mutex_lock(&turn);
  return on_file("truncate", file, syscall(SYS_ftruncate, file, size), size);
}
int ftruncate(int file, off_t size) { return ftruncate64(file, size); }

/* Not carried out: what a sync means is up to the reader. */
int fsync(int file) {
  pthread_mutex_lock(&turn);
  return on_file("sync", file, 0, -1);
}
int fdatasync(int file) { return fsync(file); }

/* Records a call on a path that has succeeded. */
static int on_path(const char *kind, int folder, const char *path, int failed) {
  Path whole = {0};
  struct stat status = {0};
  const char *name = failed ? NULL : resolve(folder, path, whole);
  if (name) {
    fstatat(folder, path, &status, AT_SYMLINK_NOFOLLOW);
    record_text(kind, status.st_ino, 0, name);
  }
  pthread_mutex_unlock(&turn);
  return failed;
}

int unlinkat(int folder, const char *path, int flags) {
  pthread_mutex_lock(&turn);
  return on_path("unlink", folder, path, syscall(SYS_unlinkat, folder, path, flags));
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }

int mkdirat(int folder, const char *path, mode_t mode) {
  pthread_mutex_lock(&turn);
  return on_path("mkdir", folder, path, syscall(SYS_mkdirat, folder, path, mode));
}
int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

/* Records a call on two paths that has succeeded. A path outside the tree is empty. */
static int on_paths(const char *kind, int from_folder, const char *from, int to_folder, const char *to, int failed) {
  Path from_whole = {0}, to_whole = {0};
  const char *source = failed ? NULL : resolve(from_folder, from, from_whole);
  const char *target = failed ? NULL : resolve(to_folder, to, to_whole);
  if (source || target) {
    struct iovec parts[3] = {{(void *)(source ? source : ""), source ? strlen(source) : 0}, {"\n", 1},
                             {(void *)(target ? target : ""), target ? strlen(target) : 0}};
    record(kind, 0, 0, parts, 3, parts[0].iov_len + 1 + parts[2].iov_len);
  }
  pthread_mutex_unlock(&turn);
  return failed;
}

int renameat2(int from_folder, const char *from, int to_folder, const char *to, unsigned flags) {
  pthread_mutex_lock(&turn);
  int failed = syscall(SYS_renameat2, from_folder, from, to_folder, to, flags);
  return on_paths(flags & RENAME_EXCHANGE ? "exchange" : "rename", from_folder, from, to_folder, to, failed);
}
int renameat(int from_folder, const char *from, int to_folder, const char *to) {
  return renameat2(from_folder, from, to_folder, to, 0);
}
int rename(const char *from, const char *to) { return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0); }

int linkat(int from_folder, const char *from, int to_folder, const char *to, int flags) {
  pthread_mutex_lock(&turn);
  int failed = syscall(SYS_linkat, from_folder, from, to_folder, to, flags);
  return on_paths("link", from_folder, from, to_folder, to, failed);
}
int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }
