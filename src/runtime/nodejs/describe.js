// Prints, as one line of JSON, what this interpreter is and where its parts are.
const variables = process.config.variables;
const glibc = process.report && process.report.getReport().header.glibcVersionRuntime;
console.log(JSON.stringify({
  version: [Number(process.versions.node.split(".")[0])],
  executable: require("fs").realpathSync(process.execPath),
  build: `${process.version} (V8 ${process.versions.v8})`,
  libc: glibc ? `glibc ${glibc}` : "",
  // Debian's Node.js reads some of its own modules from files.
  folders: (variables.node_builtin_shareable_builtins || []).filter((path) => path.startsWith("/")),
  certificates: null,
}));
