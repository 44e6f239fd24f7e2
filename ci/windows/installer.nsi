; Installs the plugins into Orthanc for Windows. `cargo xtask dist` runs this script and sets:
;
;   VERSION  the plugins' version
;   SOURCE   the folder with the DLLs, orthanc-envelope.exe, samples, licences and documentation
;   OUTPUT   the installer to write
;
; Silent: setup.exe /S [/CONNECTIONSTRING=...] [/CONTAINER=...] [/COMPONENTS=azure,s3,google] [/D=C:\Orthanc Server]

Unicode true
Target amd64-unicode
ManifestDPIAware true
RequestExecutionLevel admin
SetCompressor /SOLID lzma

!include LogicLib.nsh
!include MUI2.nsh
!include FileFunc.nsh
!include StrFunc.nsh
!include Sections.nsh
${StrStr}
${StrRep}

!define PRODUCT "Orthanc object storage"
!define UNINSTALL_KEY "Software\Microsoft\Windows\CurrentVersion\Uninstall\OrthancObjectStorage"
; Orthanc's own installer is a 32-bit program: its keys are in that part of the registry.
!define ORTHANC_KEY "SOFTWARE\Orthanc\Orthanc Server"
; The extension of a DLL that existed before. Orthanc loads only files that end in .dll.
!define FORMER ".before"

Name "${PRODUCT} ${VERSION}"
OutFile "${OUTPUT}"
InstallDir "$PROGRAMFILES64\Orthanc Server"
VIProductVersion "${VERSION}.0"
VIAddVersionKey ProductName "${PRODUCT}"
VIAddVersionKey FileDescription "Orthanc plugins for Azure Blob Storage, AWS S3 and Google Cloud Storage"
VIAddVersionKey FileVersion "${VERSION}"
VIAddVersionKey LegalCopyright "GPL-3.0-or-later"

Var ConnectionString
Var Container
Var ConnectionStringField
Var ContainerField

!insertmacro MUI_PAGE_LICENSE "${SOURCE}\LICENSE"
!insertmacro MUI_PAGE_DIRECTORY
!insertmacro MUI_PAGE_COMPONENTS
Page custom AskForContainer KeepContainer
!insertmacro MUI_PAGE_INSTFILES
!insertmacro MUI_UNPAGE_CONFIRM
!insertmacro MUI_UNPAGE_INSTFILES
!insertmacro MUI_LANGUAGE "English"

; Installs one plugin. An existing DLL that is not ours, such as the one of Orthanc's own installer, is renamed.
!macro InstallPlugin DLL SAMPLE
    SetOutPath "$INSTDIR\Plugins"
    ReadRegStr $0 HKLM "${UNINSTALL_KEY}" "${DLL}"
    ${If} $0 == ""
    ${AndIf} ${FileExists} "$INSTDIR\Plugins\${DLL}"
        Delete "$INSTDIR\Plugins\${DLL}${FORMER}"
        Rename "$INSTDIR\Plugins\${DLL}" "$INSTDIR\Plugins\${DLL}${FORMER}"
    ${EndIf}
    ClearErrors
    SetOverwrite try
    File "${SOURCE}\${DLL}"
    SetOverwrite on
    ${If} ${Errors}
        ; The DLL is open in an Orthanc that does not run as a service.
        MessageBox MB_OK|MB_ICONSTOP "$INSTDIR\Plugins\${DLL} cannot be written. Stop Orthanc, and try again." /SD IDOK
        SetErrorLevel 2
        Abort "${DLL} cannot be written"
    ${EndIf}
    WriteRegStr HKLM "${UNINSTALL_KEY}" "${DLL}" "${VERSION}"
    SetOutPath "$INSTDIR\Configuration"
    ${IfNot} ${FileExists} "$INSTDIR\Configuration\${SAMPLE}"
        File "${SOURCE}\${SAMPLE}"
        WriteRegStr HKLM "${UNINSTALL_KEY}" "${SAMPLE}" "written"
    ${EndIf}
!macroend

; Removes one plugin and restores the former DLL. The configuration remains, since it describes where the images are.
; $R8 becomes 1 if there is no former DLL: Orthanc's next start would use its own storage.
!macro RemovePlugin DLL
    ReadRegStr $0 HKLM "${UNINSTALL_KEY}" "${DLL}"
    ${If} $0 != ""
        Delete "$INSTDIR\Plugins\${DLL}"
        ${If} ${FileExists} "$INSTDIR\Plugins\${DLL}${FORMER}"
            Rename "$INSTDIR\Plugins\${DLL}${FORMER}" "$INSTDIR\Plugins\${DLL}"
        ${Else}
            StrCpy $R8 1
        ${EndIf}
    ${EndIf}
!macroend

Section "-Service" SectionStop
    SetRegView 64
    ${IfNot} ${FileExists} "$INSTDIR\Configuration\*.*"
        DetailPrint "$INSTDIR contains no Orthanc yet: creating its folders"
    ${EndIf}
    CreateDirectory "$INSTDIR\Plugins"
    CreateDirectory "$INSTDIR\Configuration"
    Call StopOrthanc
SectionEnd

Section "Azure Blob Storage" SectionAzure
    ; This comes before the sample, which never overwrites a configuration.
    ${If} $ConnectionString != ""
    ${AndIfNot} ${FileExists} "$INSTDIR\Configuration\azure-blob-storage.json"
        Call WriteAzureConfiguration
    ${EndIf}
    !insertmacro InstallPlugin "OrthancAzureBlobStorage.dll" "azure-blob-storage.json"
SectionEnd

Section /o "AWS S3" SectionS3
    !insertmacro InstallPlugin "OrthancAwsS3Storage.dll" "aws-s3-storage.json"
SectionEnd

Section /o "Google Cloud Storage" SectionGoogle
    !insertmacro InstallPlugin "OrthancGoogleCloudStorage.dll" "google-cloud-storage.json"
SectionEnd

Section "-Finish" SectionFinish
    SetOutPath "$INSTDIR\ObjectStorage"
    File "${SOURCE}\LICENSE"
    File "${SOURCE}\orthanc-envelope.exe"
    File /r "${SOURCE}\docs"
    File /r "${SOURCE}\licenses"
    WriteUninstaller "$INSTDIR\ObjectStorage\uninstall.exe"
    WriteRegStr HKLM "${UNINSTALL_KEY}" "DisplayName" "${PRODUCT} ${VERSION}"
    WriteRegStr HKLM "${UNINSTALL_KEY}" "DisplayVersion" "${VERSION}"
    WriteRegStr HKLM "${UNINSTALL_KEY}" "Publisher" "The authors of these plugins"
    WriteRegStr HKLM "${UNINSTALL_KEY}" "InstallLocation" "$INSTDIR"
    WriteRegStr HKLM "${UNINSTALL_KEY}" "UninstallString" '"$INSTDIR\ObjectStorage\uninstall.exe"'
    WriteRegStr HKLM "${UNINSTALL_KEY}" "QuietUninstallString" '"$INSTDIR\ObjectStorage\uninstall.exe" /S'
    WriteRegDWORD HKLM "${UNINSTALL_KEY}" "NoModify" 1
    WriteRegDWORD HKLM "${UNINSTALL_KEY}" "NoRepair" 1
    Call StartOrthanc
SectionEnd

Section "Uninstall"
    SetRegView 64
    ReadRegStr $INSTDIR HKLM "${UNINSTALL_KEY}" "InstallLocation"
    ${If} $INSTDIR == ""
        Abort "The registry does not contain the folder of the plugins"
    ${EndIf}
    Call un.StopOrthanc
    StrCpy $R8 0
    !insertmacro RemovePlugin "OrthancAzureBlobStorage.dll"
    !insertmacro RemovePlugin "OrthancAwsS3Storage.dll"
    !insertmacro RemovePlugin "OrthancGoogleCloudStorage.dll"
    ; Files that are not ours remain: an encryption key may have been created here.
    Delete "$INSTDIR\ObjectStorage\LICENSE"
    Delete "$INSTDIR\ObjectStorage\orthanc-envelope.exe"
    Delete "$INSTDIR\ObjectStorage\uninstall.exe"
    RMDir /r "$INSTDIR\ObjectStorage\docs"
    RMDir /r "$INSTDIR\ObjectStorage\licenses"
    RMDir "$INSTDIR\ObjectStorage"
    DeleteRegKey HKLM "${UNINSTALL_KEY}"
    ${If} $R8 == 0
        Call un.StartOrthanc
    ${Else}
        ; Orthanc is stopped, and remains so.
        DetailPrint "Orthanc is not started: without a plugin, it would store new images unencrypted on the local disk"
        StrCpy $1 "If Orthanc's configuration still has the section of a removed plugin, Orthanc would store new images UNENCRYPTED ON THE LOCAL DISK, and could read none of those in the bucket."
        ${If} $R9 == 1
            StrCpy $1 "$1$\r$\n$\r$\nThe service Orthanc was stopped, and is not started again."
        ${EndIf}
        MessageBox MB_OK|MB_ICONEXCLAMATION "$1$\r$\n$\r$\nBefore Orthanc starts again, install the plugins again, or keep the service from starting: sc config Orthanc start= disabled" /SD IDOK
    ${EndIf}
SectionEnd

; $R9 is 1 if Orthanc's service was running. Only then is the service started again.
!macro Service UN
Function ${UN}StopOrthanc
    nsExec::ExecToStack 'sc query Orthanc'
    Pop $0
    Pop $1
    StrCpy $R9 0
    ${If} $0 == 0
        nsExec::ExecToStack 'net stop Orthanc'
        Pop $0
        Pop $1
        ; The command fails if the service is not running.
        ${If} $0 == 0
            StrCpy $R9 1
        ${EndIf}
    ${EndIf}
FunctionEnd

Function ${UN}StartOrthanc
    ${If} $R9 == 1
        nsExec::ExecToStack 'net start Orthanc'
        Pop $0
        Pop $1
    ${EndIf}
FunctionEnd
!macroend
!insertmacro Service ""
!insertmacro Service "un."

; Reads the value of an option of the command line, which is in $R0. A value ends at a blank or a quote or, if it begins
; with a quote, at the next quote. NSIS' own macro ends a value at its first slash, but keys contain slashes.
!macro ReadOption NAME RESULT
    StrCpy $R2 "${NAME}"
    Call ReadOption
    StrCpy ${RESULT} $R1
!macroend

Function ReadOption
    StrCpy $R1 ""
    ${StrStr} $R3 $R0 $R2
    StrLen $R4 $R2
    StrCpy $R3 $R3 "" $R4
    StrCpy $R5 $R3 1
    StrCpy $R6 " "
    ${If} $R5 == '"'
        StrCpy $R6 '"'
        StrCpy $R3 $R3 "" 1
    ${EndIf}
    ${Do}
        StrCpy $R5 $R3 1
        StrCpy $R3 $R3 "" 1
        ${If} $R5 == ""
        ${OrIf} $R5 == $R6
        ${OrIf} $R5 == '"'
            ${ExitDo}
        ${EndIf}
        StrCpy $R1 "$R1$R5"
    ${Loop}
FunctionEnd

Function .onInit
    ${GetParameters} $R0
    ; A folder on the command line takes precedence.
    ${If} $INSTDIR == "$PROGRAMFILES64\Orthanc Server"
        SetRegView 32
        ReadRegStr $0 HKLM "${ORTHANC_KEY}" "InstallDir"
        ${If} $0 != ""
            StrCpy $INSTDIR $0
        ${EndIf}
    ${EndIf}
    SetRegView 64
    !insertmacro ReadOption "/CONNECTIONSTRING=" $ConnectionString
    !insertmacro ReadOption "/CONTAINER=" $Container
    ${If} $Container == ""
        StrCpy $Container "orthanc"
    ${EndIf}
    !insertmacro ReadOption "/COMPONENTS=" $0
    ${If} $0 != ""
        !insertmacro UnselectSection ${SectionAzure}
        ${StrStr} $1 $0 "azure"
        ${If} $1 != ""
            !insertmacro SelectSection ${SectionAzure}
        ${EndIf}
        ${StrStr} $1 $0 "s3"
        ${If} $1 != ""
            !insertmacro SelectSection ${SectionS3}
        ${EndIf}
        ${StrStr} $1 $0 "google"
        ${If} $1 != ""
            !insertmacro SelectSection ${SectionGoogle}
        ${EndIf}
    ${EndIf}
FunctionEnd

Function AskForContainer
    ${IfNot} ${SectionIsSelected} ${SectionAzure}
        Abort
    ${EndIf}
    ; An existing configuration is kept.
    ${If} ${FileExists} "$INSTDIR\Configuration\azure-blob-storage.json"
        Abort
    ${EndIf}
    !insertmacro MUI_HEADER_TEXT "Azure Blob Storage" "Where to store the images. Leave empty to install a commented sample."
    nsDialogs::Create 1018
    Pop $0
    ${NSD_CreateLabel} 0 0 100% 24u "Connection string, from $\"Access keys$\" of the storage account in the Azure portal:"
    Pop $0
    ${NSD_CreateText} 0 26u 100% 12u "$ConnectionString"
    Pop $ConnectionStringField
    ${NSD_CreateLabel} 0 48u 100% 12u "Container:"
    Pop $0
    ${NSD_CreateText} 0 60u 100% 12u "$Container"
    Pop $ContainerField
    nsDialogs::Show
FunctionEnd

Function KeepContainer
    ${NSD_GetText} $ConnectionStringField $ConnectionString
    ${NSD_GetText} $ContainerField $Container
FunctionEnd

Function WriteAzureConfiguration
    ; Both become strings in JSON.
    ${StrRep} $0 $ConnectionString "\" "\\"
    ${StrRep} $0 $0 '"' '\"'
    ${StrRep} $1 $Container "\" "\\"
    ${StrRep} $1 $1 '"' '\"'
    FileOpen $2 "$INSTDIR\Configuration\azure-blob-storage.json" w
    FileWrite $2 '// Stores Orthanc$\'s files in Azure Blob Storage. All options are in ObjectStorage\docs\configuration.md.$\r$\n'
    FileWrite $2 '{$\r$\n  "AzureBlobStorage": {$\r$\n'
    FileWrite $2 '    "ConnectionString": "$0",$\r$\n'
    FileWrite $2 '    "ContainerName": "$1"$\r$\n'
    FileWrite $2 '  }$\r$\n}$\r$\n'
    FileClose $2
    ; The file contains a key, so that only the system and administrators may read it.
    nsExec::ExecToStack 'icacls "$INSTDIR\Configuration\azure-blob-storage.json" /inheritance:r /grant *S-1-5-18:F *S-1-5-32-544:F'
    Pop $0
    Pop $1
FunctionEnd
