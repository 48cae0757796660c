// Serves what the program sees of its container.
const [fs, http, os] = ['fs', 'http', 'os'].map(require);

http.createServer((request, answer) => answer.end(`\
Hello from node.exe ${process.version} in a Windows container.
  system   ${os.version()}, ${os.release()}, ${process.platform} ${process.arch}
  account  ${os.userInfo().username} on ${os.hostname()}
  program  ${process.execPath}
  drive C: ${fs.readdirSync('C:\\').join(', ')}
`)).listen(8080);
