# escape=`
FROM mcr.microsoft.com/windows/servercore:ltsc2019
WORKDIR C:\app
COPY node.exe page.js ./
RUN setx /M PATH "%PATH%;C:\app" && reg add HKLM\Software\Demo /v Port /d 8080
RUN node --version && reg query HKLM\Software\Demo /v Port
EXPOSE 8080
CMD ["node", "page.js"]
